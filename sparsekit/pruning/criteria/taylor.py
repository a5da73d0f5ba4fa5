"""First-order Taylor pruning: how much the loss changes, to first order, without a weight.

Molchanov et al., "Importance Estimation for Neural Network Pruning", arXiv 1906.10771, equation 8.
"""

from __future__ import annotations

import torch


def score(weight: torch.Tensor, mean_squares: torch.Tensor) -> torch.Tensor:
    """Mean over batches of `(weight * gradient)^2`, the squared first-order change of the loss without the weight.

    The weights are the same for all batches, so this is the squared weight times the mean squared gradient.

    Args:
        weight: shape [out_features, in_features].
        mean_squares: mean over batches of the squared gradient of the loss, same shape.

    Returns:
        Scores of the weight's shape, of the type of `mean_squares`.

    >>> score(torch.tensor([[2.0, -3.0]]), torch.tensor([[0.25, 1.0]]))
    tensor([[1., 9.]])
    """
    return weight.to(mean_squares.dtype).square() * mean_squares
