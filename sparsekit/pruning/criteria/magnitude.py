"""Magnitude pruning: prune the smallest weights (Han et al., "Learning both Weights and Connections", 2015)."""

from __future__ import annotations

import torch


def score(weight: torch.Tensor, statistics: torch.Tensor | None = None) -> torch.Tensor:
    """Absolute value of every weight, shape [out_features, in_features]; it needs no statistics."""
    del statistics
    return weight.abs()
