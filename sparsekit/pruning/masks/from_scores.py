"""Masks from scores: True keeps a weight."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch

_ROUNDING = 1e-9  # 0.07 * 100 is a little above 7 in floating point, and must not count as 8


def _block_shape(mask_structure: str) -> tuple[int, int]:
    """Rows and columns of a block, which is kept or pruned whole."""
    if mask_structure == "unstructured":
        return 1, 1
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", mask_structure)
    if match is None:
        raise ValueError(
            f"mask_structure must be 'unstructured', 'N:M' such as '2:4' or 'RxC' such as '4x1', got {mask_structure!r}"
        )
    return int(match[1]), int(match[2])


def _kept_of(mask_structure: str) -> tuple[int, int] | None:
    """N and M of "N:M", else None."""
    match = re.fullmatch(r"(\d+):(\d+)", mask_structure)
    if match is None:
        return None
    kept, group = int(match[1]), int(match[2])
    if not 0 < kept < group:
        raise ValueError(f"mask_structure 'N:M' needs 0 < N < M, got {mask_structure!r}")
    return kept, group


def structure_sparsity(mask_structure: str) -> float | None:
    """The sparsity that a structure prescribes (0.5 for "2:4"), None where it leaves it open.

    Raises:
        ValueError: the structure is unknown.
    """
    kept = _kept_of(mask_structure)
    if kept is None:
        _block_shape(mask_structure)
        return None
    return 1.0 - kept[0] / kept[1]


def check_structure(name: str, weight: torch.Tensor, mask_structure: str) -> None:
    """Raise ValueError unless a weight's shape can be cut into the structure's groups or blocks, all of them finite."""
    kept = _kept_of(mask_structure)
    _check(name, weight, *(_block_shape(mask_structure) if kept is None else (1, kept[1])))


def group_width(mask_structure: str) -> int:
    """Consecutive inputs that a mask keeps or prunes together."""
    kept = _kept_of(mask_structure)
    return _block_shape(mask_structure)[1] if kept is None else kept[1]


def _check(name: str, score: torch.Tensor, rows: int, columns: int) -> None:
    if score.dim() != 2 or score.shape[0] % rows or score.shape[1] % columns:
        raise ValueError(
            f"{name}: a weight of shape {list(score.shape)} cannot be cut into blocks of {rows} x {columns}; "
            "choose another mask_structure or put the layer into ignore"
        )
    if torch.isnan(score).any():
        raise ValueError(f"{name}: the weight's scores hold NaN; check the weight before pruning it")


def _mask_n_of_m(name: str, score: torch.Tensor, kept: int, group: int) -> torch.Tensor:
    _check(name, score, 1, group)
    groups = score.reshape(-1, group)
    best = groups.topk(kept, dim=1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, best, True).reshape(score.shape)


def _block_scores(score: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    blocks = score.reshape(score.shape[0] // rows, rows, score.shape[1] // columns, columns)
    return blocks.sum(dim=(1, 3))


def drop_lowest(scores: torch.Tensor, dropped: int) -> torch.Tensor:
    """Mask of a flat score vector without its `dropped` lowest entries."""
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep[scores.topk(dropped, largest=False, sorted=False).indices] = False
    return keep


def _drop_lowest_of_rows(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Mask of a score matrix without the `round(sparsity * columns)` lowest entries of each row."""
    dropped = round(sparsity * scores.shape[1])
    keep = torch.ones_like(scores, dtype=torch.bool)
    return keep.scatter_(1, scores.topk(dropped, dim=1, largest=False).indices, False)


def _pin(scores: torch.Tensor, least: int, most: int) -> torch.Tensor:
    """Flat scores with the `least` lowest at -inf and all but the `most` lowest at inf."""
    order = scores.argsort()  # one order for both ends, so that equal scores are not pinned twice
    pinned = scores.clone()
    pinned[order[:least]] = -math.inf
    pinned[order[most:]] = math.inf
    return pinned


def _drop_lowest_of_all(
    blocks: Mapping[str, torch.Tensor], sparsity: float, floor: float, ceiling: float
) -> dict[str, torch.Tensor]:
    """Flat masks without the lowest entries of all layers together, each layer between its bounds."""
    sizes = [block.numel() for block in blocks.values()]
    least = [math.ceil(floor * size - _ROUNDING) for size in sizes]
    most = [max(low, math.floor(ceiling * size + _ROUNDING)) for low, size in zip(least, sizes, strict=True)]
    flat = [block.flatten() for block in blocks.values()]
    if floor > 0.0 or ceiling < 1.0:
        flat = [_pin(*bounded) for bounded in zip(flat, least, most, strict=True)]
    dropped = min(max(round(sparsity * sum(sizes)), sum(least)), sum(most))  # whole weights may miss by one a layer
    return dict(zip(blocks, drop_lowest(torch.cat(flat), dropped).split(sizes), strict=True))


def check_scope(scope: str, sparsity: float | Mapping[str, float]) -> None:
    """Raise ValueError where a scope contradicts sparsities by layer."""
    if scope == "global" and isinstance(sparsity, Mapping):
        raise ValueError("scope='global' chooses the layers' sparsities itself; give one sparsity, or scope='layer'")


def masks_by_sparsity(
    scores: Mapping[str, torch.Tensor],
    sparsity: float | Mapping[str, float],
    *,
    scope: str = "layer",
    mask_structure: str = "unstructured",
    floor: float = 0.0,
    ceiling: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Masks that prune the weights with the lowest scores to a sparsity.

    Args:
        scores: layer name -> scores, shape [out_features, in_features].
        sparsity: fraction to drop, in [0, 1), or one for each layer by name unless the scope is "global"; for "N:M" it
            must be `1 - N / M`.
        scope: "row" drops the fraction in every output (or row of blocks), "layer" in every layer, "global" over all
            layers together.
        mask_structure: "unstructured", "N:M" (N kept of M consecutive inputs) or "RxC" blocks (R outputs, C inputs).
        floor: least sparsity of every layer when the scope is "global", at most `sparsity`.
        ceiling: largest sparsity of every layer when the scope is "global", at least `sparsity`.

    Returns:
        layer name -> mask, bool, the scores' shape.

    Raises:
        ValueError: an argument is out of range, or a shape does not fit the structure.
    """
    n_of_m = _kept_of(mask_structure)
    if n_of_m is not None:
        if scope == "global":
            raise ValueError("mask_structure 'N:M' fixes every group; use scope='layer'")
        return {name: _mask_n_of_m(name, score, *n_of_m) for name, score in scores.items()}
    rows, columns = _block_shape(mask_structure)
    for name, score in scores.items():
        _check(name, score, rows, columns)
    blocks = {name: _block_scores(score, rows, columns) for name, score in scores.items()}
    check_scope(scope, sparsity)
    parts = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(blocks, sparsity)
    if not isinstance(sparsity, Mapping) and scope == "global":
        kept = _drop_lowest_of_all(blocks, sparsity, floor, ceiling)
    elif scope == "row":
        kept = {name: _drop_lowest_of_rows(block, parts[name]) for name, block in blocks.items()}
    else:
        dropped = {name: round(parts[name] * block.numel()) for name, block in blocks.items()}
        kept = {name: drop_lowest(block.flatten(), dropped[name]) for name, block in blocks.items()}
    return {
        name: kept[name].reshape(block.shape).repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        for name, block in blocks.items()
    }


def masks_by_threshold(scores: Mapping[str, torch.Tensor], threshold: float) -> dict[str, torch.Tensor]:
    """Masks that drop every weight whose score is below the threshold.

    Raises:
        ValueError: scores hold NaN.
    """
    for name, score in scores.items():
        _check(name, score, 1, 1)
    return {name: score >= threshold for name, score in scores.items()}
