"""SparseGPT of one weight matrix: prune the weights with the least error, correct those that stay.

The layer's error on its inputs X is `|| W X - target ||^2`, a quadratic in every row of W with the Hessian
`H = X X^T`. As in SparseGPT (Frantar and Alistarh, arXiv 2301.00774), columns are pruned from left to right; a pruned
weight's error is compensated in the columns to its right (optimal brain surgeon).
"""

from __future__ import annotations

import torch

from sparsekit.pruning.masks.from_scores import group_width, masks_by_sparsity


def damped(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """The Hessian with `damping` times its mean diagonal added to the diagonal, so that it can be inverted."""
    ridge = damping * hessian.diagonal().mean()
    ridge = torch.where(ridge > 0, ridge, 1.0)  # inputs that are all zero leave every weight equally free
    return hessian + ridge * torch.eye(hessian.shape[0], dtype=hessian.dtype, device=hessian.device)


def match_targets(weight: torch.Tensor, hessian: torch.Tensor, cross: torch.Tensor, damping: float) -> torch.Tensor:
    """Dense weight whose outputs on the layer's inputs now are closest to those of `weight` on its dense inputs.

    Minimizes `|| V X - W X0 ||^2` with a ridge towards W: earlier layers were pruned, so X is no longer X0, and the
    difference is corrected before anything is pruned.

    Args:
        weight: W, shape [out_features, in_features].
        hessian: `X X^T`, shape [in_features, in_features].
        cross: `X0 X^T`, same shape.
        damping: ridge, as a fraction of the Hessian's mean diagonal.

    Returns:
        V, shape [out_features, in_features].
    """
    system = damped(hessian, damping)
    right = weight @ (cross + (system - hessian))
    return torch.cholesky_solve(right.T, torch.linalg.cholesky(system)).T.contiguous()


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor of the inverse Hessian: its rows hold what elimination from left to right needs."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(hessian, damping)))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _prune_columns(columns: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Prune columns in place, left to right; returns each column's error per unit of the factor's diagonal."""
    errors = torch.empty_like(columns)
    for j in range(columns.shape[1]):
        error = torch.where(mask[:, j], 0.0, columns[:, j]) / factor[j, j]
        columns[:, j:] -= error[:, None] * factor[j, j:]
        errors[:, j] = error
    columns *= mask
    return errors


def prune_weight(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    sparsity: float,
    *,
    mask_structure: str = "unstructured",
    damping: float = 0.01,
    column_block: int = 128,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prune one weight to a sparsity and correct the weights that stay.

    Args:
        weight: shape [out_features, in_features], float32.
        hessian: sum of `x x^T` over the layer's inputs, shape [in_features, in_features], float32.
        sparsity: fraction to prune, in [0, 1), reached in every column block.
        mask_structure: as in `prune`.
        damping: ridge, as a fraction of the Hessian's mean diagonal.
        column_block: columns whose mask is chosen together, rounded to whole groups of the structure.

    Returns:
        The corrected weight and its mask (bool, True kept), both of the weight's shape.
    """
    weight = weight.clone()
    column_block = max(1, column_block // group_width(mask_structure)) * group_width(mask_structure)
    factor = _inverse_factor(hessian, damping)
    mask = torch.empty_like(weight, dtype=torch.bool)
    for first in range(0, weight.shape[1], column_block):
        last = min(first + column_block, weight.shape[1])
        columns = weight[:, first:last].clone()
        score = (columns / factor[first:last, first:last].diagonal()).square()
        kept = masks_by_sparsity({"weight": score}, sparsity, mask_structure=mask_structure)["weight"]
        errors = _prune_columns(columns, kept, factor[first:last, first:last])
        weight[:, first:last] = columns
        mask[:, first:last] = kept
        weight[:, last:] -= errors @ factor[first:last, last:]
    return weight, mask
