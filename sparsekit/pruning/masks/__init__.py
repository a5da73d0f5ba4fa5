"""Masks: from scores, as parametrizations, and from existing zeros."""
