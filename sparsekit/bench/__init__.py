"""Measure dense against sparse."""
