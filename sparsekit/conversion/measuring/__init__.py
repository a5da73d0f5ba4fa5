"""Measure the speed-up and the error of sparse layers."""
