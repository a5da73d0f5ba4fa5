"""Calibration batches: inputs to measure a model on before pruning."""

from __future__ import annotations

from collections.abc import Mapping

import torch

#: Keyword arguments of a model's forward; an "attention_mask" says what is padding.
Batch = Mapping[str, torch.Tensor]


def token_rows(input: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
    """Drop padding from an activation.

    Args:
        input: shape [..., features].
        tokens: bool, True for tokens that are not padding; None or another shape than [...]: keep all.

    Returns:
        Rows, shape [tokens, features].
    """
    if tokens is not None and input.shape[:-1] == tokens.shape:
        return input[tokens]
    return input.flatten(0, -2)
