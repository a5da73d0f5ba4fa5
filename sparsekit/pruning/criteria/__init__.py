"""Scores of weights, one criterion a file: a pure `score(weight, statistics)`; the lowest are pruned."""
