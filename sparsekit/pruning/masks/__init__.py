"""Masks: from scores, as parametrizations that stay, of zeros that are there."""
