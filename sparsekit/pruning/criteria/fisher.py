"""Fisher pruning: the second-order change of the loss without a weight (Kurtic et al., "oBERT", arXiv 2203.07259)."""

from __future__ import annotations

import torch


def score(weight: torch.Tensor, inverse_diagonal: torch.Tensor) -> torch.Tensor:
    """Second-order rise of the loss without a weight, with the others corrected: `w^2 / (2 [F^-1]_ii)`.

    Args:
        weight: shape [out_features, in_features].
        inverse_diagonal: diagonal of the inverse Fisher matrix, same shape.

    Returns:
        Scores of the weight's shape, of the type of `inverse_diagonal`.

    >>> score(torch.tensor([[2.0, -3.0]]), torch.tensor([[0.5, 1.0]]))
    tensor([[4.0000, 4.5000]])
    """
    return weight.to(inverse_diagonal.dtype).square() / (2.0 * inverse_diagonal)
