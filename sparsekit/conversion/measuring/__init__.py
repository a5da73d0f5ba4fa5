"""Measure what sparse layers gain, and what they change."""
