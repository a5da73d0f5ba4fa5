"""Scales of int4 for one group of columns while SparseGPT goes from left to right."""

from __future__ import annotations

import torch

from sparsekit.pruning.masks.int4_rounding import MOST, round_to_int4

#: Parts of the largest magnitude that are tried as the largest code.
_TRIED = torch.linspace(0.5, 1.0, 21).tolist()
_SMALLEST_FLOAT16 = 2.0**-24


def group_scales(columns: torch.Tensor) -> torch.Tensor:
    """Of several scales for each row the one with the least squared error, as float16 holds it.

    Args:
        columns: the weights of a group that stay, 0 for others, float32, shape [out_features, width].

    Returns:
        float32, shape [out_features]; 1 for rows without weights.
    """
    largest = columns.abs().amax(1) / MOST
    best, least = torch.ones_like(largest), torch.full_like(largest, torch.inf)
    for part in _TRIED:
        scales = (largest * part).clamp_min(_SMALLEST_FLOAT16).half().float()
        error = (round_to_int4(columns, scales[:, None]) - columns).square().sum(1)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return torch.where(largest > 0, best, 1.0)
