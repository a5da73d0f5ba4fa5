"""SparseGPT of one weight matrix: prune the weights with the least error, correct those that stay.

The layer's error on its inputs X is `|| W X - target ||^2`, a quadratic in every row of W with the Hessian
`H = X X^T`. As in SparseGPT (Frantar and Alistarh, arXiv 2301.00774), columns are pruned from left to right; a pruned
weight's error is compensated in the columns to its right (optimal brain surgeon). Rounding to int4 is one more error
of the same kind: the weights that stay are rounded as they are passed, as in GPTQ (Frantar et al., arXiv 2210.17323).
"""

from __future__ import annotations

import torch

from sparsekit.int4_groups import GROUP
from sparsekit.pruning.masks.from_scores import group_width, masks_by_sparsity
from sparsekit.pruning.masks.int4_rounding import round_to_int4
from sparsekit.pruning.sparsegpt.group_scales import group_scales


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


def inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor of the inverse Hessian: its rows hold what elimination from left to right needs.

    Args:
        hessian: `X X^T`, float32, shape [in_features, in_features].
        damping: ridge, as a fraction of the Hessian's mean diagonal.

    Returns:
        The factor, of the same shape, for all layers that read X and all their sparsities.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(hessian, damping)))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _prune_columns(
    columns: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor, scales: torch.Tensor | None
) -> torch.Tensor:
    """Prune, and with `scales` round, columns in place, left to right.

    Returns:
        Each column's error per unit of the factor's diagonal.
    """
    errors = torch.empty_like(columns)
    for j in range(columns.shape[1]):
        column = columns[:, j]
        kept = torch.where(mask[:, j], column if scales is None else round_to_int4(column, scales), 0.0)
        error = (column - kept) / factor[j, j]
        columns[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
        columns[:, j] = kept
        errors[:, j] = error
    return errors


def prune_weight(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    sparsity: float,
    *,
    mask_structure: str = "unstructured",
    damping: float = 0.01,
    column_block: int = GROUP,
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
    pruned, mask, _ = prune_and_round(weight, hessian, sparsity, None, mask_structure, damping, column_block)
    return pruned, mask


def prune_and_round(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    sparsity: float,
    dtype: str | None,
    mask_structure: str,
    damping: float,
    column_block: int = GROUP,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """`prune_weight`, and round the weights that stay.

    Args:
        weight: as for `prune_weight`, like the others.
        hessian: the layer's.
        sparsity: fraction to prune.
        dtype: "int4", or None to round nothing.
        mask_structure: as in `prune`.
        damping: ridge.
        column_block: columns whose mask is chosen together; with a `dtype` a group, whose scale is.

    Returns:
        Weight, mask and scales, float32, shape [out_features, groups]; None for those without a `dtype`.
    """
    return prune_by_factor(weight, inverse_factor(hessian, damping), sparsity, dtype, mask_structure, column_block)


def prune_by_factor(
    weight: torch.Tensor,
    factor: torch.Tensor,
    sparsity: float,
    dtype: str | None,
    mask_structure: str,
    column_block: int = GROUP,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """`prune_and_round` by the Hessian's `inverse_factor`, which layers of one input and sparsities share."""
    weight = weight.clone()
    column_block = max(1, column_block // group_width(mask_structure)) * group_width(mask_structure)
    mask = torch.empty_like(weight, dtype=torch.bool)
    found: list[torch.Tensor] = []
    for first in range(0, weight.shape[1], column_block):
        last = min(first + column_block, weight.shape[1])
        columns = weight[:, first:last].clone()
        score = (columns / factor[first:last, first:last].diagonal()).square()
        kept = masks_by_sparsity({"weight": score}, sparsity, mask_structure=mask_structure)["weight"]
        scales = None if dtype is None else group_scales(columns * kept)
        errors = _prune_columns(columns, kept, factor[first:last, first:last], scales)
        if scales is not None:
            found.append(scales)
        weight[:, first:last] = columns
        mask[:, first:last] = kept
        weight[:, last:] -= errors @ factor[first:last, last:]
    return weight, mask, torch.stack(found, dim=1) if found else None
