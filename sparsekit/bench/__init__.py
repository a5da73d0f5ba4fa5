"""Benchmark dense and sparse engines."""
