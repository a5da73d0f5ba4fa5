"""Wanda: magnitude times input norm, compared within each output.

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695, equation 1.
"""

from __future__ import annotations

import torch


def score(weight: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Magnitude of every weight times the norm of the input feature that it multiplies.

    Args:
        weight: shape [out_features, in_features].
        norms: norm of each input feature over the calibration tokens, shape [in_features].

    Returns:
        Scores of the weight's shape and type.

    >>> score(torch.tensor([[2.0, -3.0]]), torch.tensor([3.0, 1.0]))
    tensor([[6., 3.]])
    """
    return weight.abs() * norms.to(weight)
