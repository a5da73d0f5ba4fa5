"""Magnitude pruning: the smallest weights go first (Han et al., "Learning both Weights and Connections", 2015)."""

from __future__ import annotations

import torch


def score(weight: torch.Tensor) -> torch.Tensor:
    """Absolute value of every weight, shape [out_features, in_features]."""
    return weight.abs()
