"""Second-order pruning of one weight: drop what costs least, let the weights that stay make up for it.

The layer's error on its inputs X is `|| W X - target ||^2`, a quadratic in every row of W with the Hessian
`H = X X^T`. Following SparseGPT (Frantar and Alistarh, arXiv 2301.00774), columns are handled from left to right; a
pruned weight's error is spread over the columns that are not yet done (optimal brain surgeon).
"""

from __future__ import annotations

import torch

from sparsekit.pruning.masks import group_width, masks_by_sparsity


def damped(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """The Hessian with `damping` times its mean diagonal added to the diagonal, so that it can be inverted."""
    ridge = damping * hessian.diagonal().mean()
    ridge = torch.where(ridge > 0, ridge, 1.0)  # inputs that are all zero leave every weight equally free
    return hessian + ridge * torch.eye(hessian.shape[0], dtype=hessian.dtype, device=hessian.device)


def match_targets(weight: torch.Tensor, hessian: torch.Tensor, cross: torch.Tensor, damping: float) -> torch.Tensor:
    """Dense weight that, on the inputs X the layer gets now, comes closest to `weight` on the inputs X0 it used to get.

    Minimises `|| V X - W X0 ||^2` with a ridge towards W: earlier layers were pruned, so X is no longer X0, and what
    can be mended is mended here before anything is dropped.

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


def _prune_block(block: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Prunes the columns of `block` in place; returns each column's error per unit of the factor's diagonal."""
    errors = torch.empty_like(block)
    for j in range(block.shape[1]):
        column = block[:, j]
        error = torch.where(mask[:, j], 0.0, column) / factor[j, j]
        block[:, j:] -= error[:, None] * factor[j, j:]
        errors[:, j] = error
    block *= mask
    return errors


def prune_weight(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    sparsity: float,
    *,
    mask_structure: str = "unstructured",
    damping: float = 0.01,
    block_width: int = 128,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prune one weight to a sparsity and correct the weights that stay.

    Args:
        weight: shape [out_features, in_features], float32.
        hessian: sum of `x x^T` over the layer's inputs, shape [in_features, in_features], float32.
        sparsity: fraction to prune, in [0, 1), reached in every block of columns.
        mask_structure: as in `prune`.
        damping: ridge, as a fraction of the Hessian's mean diagonal.
        block_width: columns for which the mask is chosen together, rounded to whole groups of the structure.

    Returns:
        The corrected weight and its mask (bool, True kept), both of the weight's shape.
    """
    weight = weight.clone()
    block_width = max(1, block_width // group_width(mask_structure)) * group_width(mask_structure)
    factor = _inverse_factor(hessian, damping)
    mask = torch.empty_like(weight, dtype=torch.bool)
    for first in range(0, weight.shape[1], block_width):
        last = min(first + block_width, weight.shape[1])
        block = weight[:, first:last].clone()
        score = (block / factor[first:last, first:last].diagonal()).square()
        kept = masks_by_sparsity({"weight": score}, sparsity, mask_structure=mask_structure)["weight"]
        errors = _prune_block(block, kept, factor[first:last, first:last])
        weight[:, first:last] = block
        mask[:, first:last] = kept
        weight[:, last:] -= errors @ factor[first:last, last:]
    return weight, mask
