"""Measure a compressed model for its report page: speed, quality, layers, size."""
