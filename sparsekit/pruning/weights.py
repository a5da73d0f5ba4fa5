"""`prune`: choose layers, score, mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from sparsekit.pruning import magnitude
from sparsekit.pruning.masks import masks_by_sparsity, masks_by_threshold, structure_sparsity
from sparsekit.pruning.parametrization import apply_mask
from sparsekit.selection import select_linears, shared_weights

#: Criterion name -> score of a weight, both of shape [out_features, in_features].
CRITERIA: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"magnitude": magnitude.score}


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
    scope: str = "layer",
    threshold: float | None = None,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
    criterion: str = "magnitude",
) -> dict[str, float]:
    """Mask the least important weights of a model's linear layers, in place.

    The masks stay through later training; `finalize` bakes them in. Pruning again replaces the masks, and what is
    masked already scores lowest.

    Args:
        model: any PyTorch model.
        sparsity: fraction of weights to mask, in [0, 1). "N:M" structures imply it.
        scope: "layer" masks this fraction in every layer, "global" over all layers together.
        threshold: instead of a sparsity: mask weights whose score is below it.
        targets: layers to prune: class names, module names or "re:" patterns.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured", "N:M" (N kept of every M consecutive inputs) or "RxC" blocks (R outputs of C
            inputs are kept or masked together).
        criterion: a name of `CRITERIA`.

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
    if scope not in ("layer", "global"):
        raise ValueError(f"scope must be 'layer' or 'global', got {scope!r}")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    layers = select_prunable(model, targets, ignore)
    scores = {name: CRITERIA[criterion](layer.weight.detach()) for name, layer in layers.items()}
    if wanted is None:
        masks = masks_by_threshold(scores, threshold or 0.0)
    else:
        masks = masks_by_sparsity(scores, wanted, scope=scope, mask_structure=mask_structure)
    for name, layer in layers.items():
        apply_mask(layer, masks[name])
    return {name: 1.0 - mask.float().mean().item() for name, mask in masks.items()}
