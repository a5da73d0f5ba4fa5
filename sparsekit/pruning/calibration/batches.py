"""Calibration batches: what a model is measured on before it is pruned."""

from __future__ import annotations

from collections.abc import Mapping

import torch

#: Keyword arguments of a model's forward; an "attention_mask" says what is padding.
Batch = Mapping[str, torch.Tensor]


def token_rows(input: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
    """Activation without padding.

    Args:
        input: shape [..., features].
        tokens: which tokens are no padding, bool; None, or of another shape than [...]: all.

    Returns:
        Rows, shape [tokens, features].
    """
    if tokens is not None and input.shape[:-1] == tokens.shape:
        return input[tokens]
    return input.flatten(0, -2)
