"""Benchmarks of dense and sparse engines."""
