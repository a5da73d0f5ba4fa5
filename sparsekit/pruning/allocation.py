"""Allocate sparsity to layers so that the loss rises least.

The loss of pruning a layer is estimated from gradients (Fisher pruning: Theis et al., arXiv 1801.05787): half the mean
square, over batches, of `sum(weight * gradient)` over the pruned weights. One pass over the batches gives the estimate
for every layer and sparsity. Sparsity is then allocated greedily where the next weights cost least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.calibration.gradients import Loss, weight_gradients
from sparsekit.pruning.layers import group_prunable, weight_of
from sparsekit.pruning.masks.from_scores import masks_by_sparsity, structure_sparsity
from sparsekit.pruning.methods import METHODS, find_method, weight_methods
from sparsekit.pruning.sparsity import check_sparsity
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.pruning.weights import scope_of, score_groups

#: Steps of sparsity at which the loss is estimated: 1/20, 2/20, ...
_LEVELS = 20


def _levels_kept(scores: Mapping[str, torch.Tensor], scope: str, mask_structure: str) -> dict[str, torch.Tensor]:
    """At how many levels of sparsity above 0 and below 1 each weight is kept, flat, uint8."""
    kept = {name: torch.zeros(score.numel(), dtype=torch.uint8, device=score.device) for name, score in scores.items()}
    for level in range(1, _LEVELS):
        masks = masks_by_sparsity(scores, level / _LEVELS, scope=scope, mask_structure=mask_structure)
        for name, mask in masks.items():
            kept[name] += mask.flatten()
    return kept


def loss_curves(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    kept: Mapping[str, torch.Tensor],
    batches: Sequence[Any],
    loss: Loss | None,
) -> dict[str, torch.Tensor]:
    """Second-order estimate of how much the loss rises if one layer is pruned to each level of sparsity.

    Args:
        model: any PyTorch model.
        layers: linear layers of it, or `Conv1D`, by name.
        kept: at how many of the levels below 1 each weight stays, flat, in the order of [out_features, in_features].
        batches: what `loss` takes; each gives one gradient.
        loss: as in `prune`.

    Raises:
        ValueError: as `weight_gradients`; also when a gradient is not finite.

    Returns:
        Layer name -> costs at the sparsities 1/20, 2/20 to 1, float64 [20].
    """
    totals = {name: torch.zeros(_LEVELS, dtype=torch.float64) for name in layers}
    for gradients in weight_gradients(model, layers, batches, loss):
        for name, gradient in gradients.items():
            changes = (weight_of(layers[name]) * gradient).flatten()
            by_level = torch.bincount(kept[name], changes, minlength=_LEVELS).double().cpu()
            totals[name] += by_level.cumsum(0).square()
    for name, total in totals.items():
        if not total.isfinite().all():
            raise ValueError(f"{name}: gradients hold NaN or inf; see which batch has such a loss")
    return {name: total / (2 * len(batches)) for name, total in totals.items()}


def distribute(
    curves: Mapping[str, torch.Tensor], sizes: Mapping[str, int], sparsity: float, least: float, most: float
) -> dict[str, float]:
    """Sparsities between two bounds with a given mean over all weights, raised where the next step costs least.

    Args:
        curves: layer name -> costs at the sparsities 1/n, 2/n to 1, shape [n].
        sizes: layer name -> number of weights.
        sparsity: of all weights together, between the bounds.
        least: lower bound.
        most: upper bound.
    """
    steps = []
    for name, curve in curves.items():
        rises = torch.diff(curve, prepend=curve.new_zeros(1)) / sizes[name]
        slope = -math.inf
        for number, rise in enumerate(rises.tolist()):
            width = min(most, (number + 1) / len(rises)) - max(least, number / len(rises))
            if width > 0:
                slope = max(slope, rise)  # a step that looks cheaper than the one before still comes after it
                steps.append((slope, name, width))
    given = dict.fromkeys(curves, least)
    left = (sparsity - least) * sum(sizes.values())
    for _, name, width in sorted(steps, key=lambda step: step[0]):
        taken = max(0.0, min(width, left / sizes[name]))
        given[name] += taken
        left -= taken * sizes[name]
    return given


@on_split_modules
def allocate_sparsity(
    model: nn.Module,
    sparsity: float,
    batches: Sequence[Any],
    *,
    loss: Loss | None = None,
    spread: float = 0.2,
    criterion: str = "magnitude",
    calibration: Sequence[Any] | None = None,
    scope: str | None = None,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
) -> dict[str, float]:
    """Choose each layer's sparsity so that pruning the model to `sparsity` costs least; nothing is pruned yet.

    Pass the result to `prune`, `prune_sparsegpt` or `prune_obert` as `sparsity`. Costs are estimated for each layer
    pruned alone, from one gradient a batch: several dozen small batches estimate better than few large ones. Layers
    with low sparsity may run no faster than dense ones; `convert` leaves them dense.

    Args:
        model: any PyTorch model; it runs in eval mode, and its mode is put back.
        sparsity: fraction of all weights to prune, in [0, 1).
        batches: what `loss` takes.
        loss: as in `prune`.
        spread: largest difference of a layer's sparsity from `sparsity`, in [0, 1]. Every layer also keeps half of what
            it would keep with one sparsity for all.
        criterion: which weights of a layer are pruned first, as in `prune`; "wanda" stands in for "sparsegpt" and
            "obert", which have no scores before they prune.
        calibration: batches that the criterion is measured on, as in `prune`; None: `batches`.
        scope: "row" or "layer", as in `prune`.
        targets: layers to prune, as in `prune`.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured" or "RxC" blocks; "N:M" fixes the sparsity of every layer.

    Returns:
        Layer name -> sparsity; those that share one weight have the same.

    Raises:
        TypeError, ValueError: as `prune`.

    >>> from sparsekit.pruning import prune
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    >>> _ = model[0].weight.data.mul_(0.01)  # its outputs are small
    >>> batches = list(torch.randn(8, 4, 64))
    >>> given = allocate_sparsity(model, 0.5, batches, loss=lambda model, x: model(x).square().mean())
    >>> {name: round(part, 2) for name, part in given.items()}
    {'0': 0.7, '1': 0.3}
    >>> pruned = prune(model, given)
    """
    check_sparsity(sparsity)
    if not 0.0 <= spread <= 1.0:
        raise ValueError(f"spread must be in [0, 1], got {spread}; 0.2 lets layers differ by 20 points from the mean")
    if structure_sparsity(mask_structure) is not None:
        raise ValueError(f"mask_structure {mask_structure!r} fixes every layer's sparsity; there is none to spread")
    method = METHODS[find_method(criterion, weight_methods()).scored_by or criterion]
    if scope == "global":
        raise ValueError("scope must be row or layer, got 'global', which chooses sparsities by scores instead")
    scope = scope_of(method, scope)
    groups = group_prunable(model, targets, ignore)
    scores = score_groups(model, groups, method, batches if calibration is None else calibration, loss)
    first = dict(next(iter(group.items())) for group in groups)
    curves = loss_curves(model, first, _levels_kept(scores, scope, mask_structure), batches, loss)
    sizes = {name: score.numel() for name, score in scores.items()}
    most = min(sparsity + spread, (1.0 + sparsity) / 2)
    given = distribute(curves, sizes, sparsity, max(0.0, sparsity - spread), most)
    return {name: given[next(iter(group))] for group in groups for name in group}
