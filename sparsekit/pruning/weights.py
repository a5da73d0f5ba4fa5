"""`prune`: choose layers, score, mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.pruning import magnitude, wanda
from sparsekit.pruning.calibration import Batch
from sparsekit.pruning.masks import masks_by_sparsity, masks_by_threshold, structure_sparsity
from sparsekit.pruning.parametrization import apply_mask
from sparsekit.pruning.statistics import input_norms
from sparsekit.selection import select_linears, shared_weights

_SCOPES = ("row", "layer", "global")


@dataclass(frozen=True)
class Criterion:
    """How weights are scored, and among which of them the lowest go."""

    score: Callable[[torch.Tensor, Any], torch.Tensor]  # of a weight and its layer's statistics, in the weight's shape
    scope: str  # what `prune` takes unless told
    statistics: Callable[[nn.Module, Mapping[str, nn.Linear], Sequence[Batch]], Mapping[str, Any]] | None = None


#: Criteria by name.
CRITERIA = {
    "magnitude": Criterion(magnitude.score, "layer"),
    "wanda": Criterion(wanda.score, "row", input_norms),
}


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless `sparsity` is in [0, 1)."""
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}; 0.8 makes 80% of the weights zero")


def select_prunable(model: nn.Module, targets: Iterable[str], ignore: Iterable[str]) -> dict[str, nn.Linear]:
    """Linear layers to prune.

    Raises:
        TypeError, ValueError: as `select_linears`; also when a layer shares its weight with another module.
    """
    layers = select_linears(model, targets, ignore)
    shared = shared_weights(model)
    for name in layers:
        if name in shared:
            raise ValueError(f"{name}.weight is shared with {', '.join(shared[name])}; put {name!r} into ignore")
    return layers


def wanted_sparsity(sparsity: float | None, threshold: float | None, mask_structure: str) -> float | None:
    """The sparsity to reach, None for a threshold.

    Raises:
        ValueError: the arguments contradict each other or are out of range.
    """
    prescribed = structure_sparsity(mask_structure)
    if threshold is not None:
        if sparsity is not None or mask_structure != "unstructured":
            raise ValueError("threshold stands alone: leave out sparsity and mask_structure")
        return None
    wanted = prescribed if sparsity is None else sparsity
    if wanted is None:
        raise ValueError("give sparsity (a fraction such as 0.8) or threshold (a magnitude)")
    check_sparsity(wanted)
    if prescribed is not None and not math.isclose(wanted, prescribed):
        raise ValueError(f"mask_structure {mask_structure!r} means sparsity {prescribed}, got {wanted}")
    return wanted


def prune(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    scope: str | None = None,
    threshold: float | None = None,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
    criterion: str = "magnitude",
    batches: Sequence[Batch] = (),
) -> dict[str, float]:
    """Mask the least important weights of a model's linear layers, in place.

    The masks stay through later training; `finalize` bakes them in. Pruning again replaces the masks, and what is
    masked already scores lowest.

    Args:
        model: any PyTorch model.
        sparsity: fraction of weights to mask, in [0, 1). "N:M" structures imply it.
        scope: "row" masks this fraction in every output, "layer" in every layer, "global" over all layers together;
            None: "layer" for magnitude, "row" for wanda.
        threshold: instead of a sparsity: mask weights whose score is below it.
        targets: layers to prune: class names, module names or "re:" patterns.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured", "N:M" (N kept of every M consecutive inputs) or "RxC" blocks (R outputs of C
            inputs are kept or masked together).
        criterion: "magnitude", or "wanda": magnitude times the norm of the input that a weight multiplies.
        batches: what the norms are taken on: keyword arguments of the model's forward; with an "attention_mask",
            padding does not count.

    Returns:
        Layer name -> the layer's sparsity now.

    Raises:
        TypeError: `targets` or `ignore` is a string.
        ValueError: an argument is out of range, arguments contradict each other, a target matches nothing, or a
            weight is shared with another module.

    >>> from sparsekit import finalize
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> prune(model, sparsity=0.5, ignore=["2"])
    {'0': 0.5}
    >>> int((finalize(model)[0].weight == 0).sum())
    16
    """
    wanted = wanted_sparsity(sparsity, threshold, mask_structure)
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    chosen = CRITERIA[criterion]
    scope = chosen.scope if scope is None else scope
    if scope not in _SCOPES:
        raise ValueError(f"scope must be one of {', '.join(_SCOPES)}, got {scope!r}")
    if (chosen.statistics is None) == bool(batches):
        raise ValueError(f"criterion {criterion!r} needs {'no' if batches else 'calibration'} batches")
    layers = select_prunable(model, targets, ignore)
    statistics = chosen.statistics(model, layers, batches) if chosen.statistics else dict.fromkeys(layers)
    scores = {name: chosen.score(layer.weight.detach(), statistics[name]) for name, layer in layers.items()}
    if wanted is None:
        masks = masks_by_threshold(scores, threshold or 0.0)
    else:
        masks = masks_by_sparsity(scores, wanted, scope=scope, mask_structure=mask_structure)
    for name, layer in layers.items():
        apply_mask(layer, masks[name])
    return {name: 1.0 - mask.float().mean().item() for name, mask in masks.items()}
