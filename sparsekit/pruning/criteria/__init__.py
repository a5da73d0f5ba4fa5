"""Scores of weights: one criterion a file."""
