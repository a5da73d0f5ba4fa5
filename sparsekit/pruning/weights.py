"""`prune`: choose layers, score their weights, mask the lowest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.calibration.gradients import Loss
from sparsekit.pruning.fidelity_warning import warns_if_far
from sparsekit.pruning.layers import group_prunable, weight_of
from sparsekit.pruning.masks.from_scores import masks_by_sparsity, masks_by_threshold
from sparsekit.pruning.masks.parametrization import apply_mask
from sparsekit.pruning.methods import Method, check_needs, find_method, weight_methods
from sparsekit.pruning.sparsity import check_bounds, sparsity_of_groups
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.surgery import undo_on_failure


def scope_of(method: Method, scope: str | None) -> str:
    """The scope to use: the one given, or the method's own.

    Raises:
        ValueError: the method has no such scope.
    """
    if scope is not None and scope not in method.scopes:
        raise ValueError(f"scope must be one of {', '.join(method.scopes)}, got {scope!r}")
    return method.scopes[0] if scope is None else scope


def score_groups(
    model: nn.Module,
    groups: Sequence[Mapping[str, nn.Module]],
    method: Method,
    batches: Sequence[Any],
    loss: Loss | None,
) -> dict[str, torch.Tensor]:
    """Scores of every group's weight under the name of its first layer: the mean over the layers that share it."""
    if method.score is None:
        raise ValueError(f"{method.name} has no scores of its own")
    layers = {name: layer for group in groups for name, layer in group.items()}
    statistics: Mapping[str, Any] = dict.fromkeys(layers)
    if method.statistics is not None:
        statistics = method.statistics(model, layers, batches, *([loss] if method.needs_loss else []))
    scores = {}
    for group in groups:
        found = [method.score(weight_of(layer), statistics[name]) for name, layer in group.items()]
        scores[next(iter(group))] = found[0] if len(found) == 1 else torch.stack(found).mean(0)
    return scores


@on_split_modules
def _mask_lowest(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None,
    batches: Sequence[Any],
    method: Method,
    loss: Loss | None,
    *,
    scope: str | None,
    threshold: float | None,
    mask_structure: str,
    targets: Iterable[str],
    ignore: Iterable[str],
    floor: float,
    ceiling: float,
) -> dict[str, float]:
    groups = group_prunable(model, targets, ignore)
    wanted = sparsity_of_groups(groups, sparsity, threshold, mask_structure)
    check_needs(method, batches, loss)
    scope = scope_of(method, scope)
    check_bounds(floor, ceiling, wanted, scope)
    scores = score_groups(model, groups, method, batches, loss)
    if wanted is None:
        masks = masks_by_threshold(scores, threshold or 0.0)
    else:
        bounds = {"floor": floor, "ceiling": ceiling}
        masks = masks_by_sparsity(scores, wanted, scope=scope, mask_structure=mask_structure, **bounds)
    with undo_on_failure(model):
        for group in groups:
            first, *others = group
            apply_mask(group[first], masks[first], *(group[name] for name in others))
    return {name: 1.0 - masks[next(iter(group))].float().mean().item() for group in groups for name in group}


def _check_layer_by_layer(
    method: Method, scope: str | None, threshold: float | None, floor: float, ceiling: float
) -> None:
    given = {"scope": scope is not None, "threshold": threshold is not None}
    given |= {"floor": floor > 0.0, "ceiling": ceiling < 1.0}
    names = [name for name, is_given in given.items() if is_given]
    if names:
        raise ValueError(f"criterion {method.name!r} prunes layer by layer; leave out {', '.join(names)}")


@warns_if_far
def prune(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None = None,
    batches: Sequence[Any] = (),
    *,
    criterion: str = "magnitude",
    loss: Loss | None = None,
    scope: str | None = None,
    threshold: float | None = None,
    mask_structure: str = "unstructured",
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    floor: float = 0.0,
    ceiling: float = 1.0,
) -> dict[str, float]:
    """Prune a model's linear layers in place: mask the weights with the lowest scores.

    The masks stay through later training; `finalize` bakes them in. Pruning again replaces the masks, and what is
    masked already scores lowest. Layers that share one weight share its mask, made from the mean of their scores. A
    layer that shares its weight with an embedding, as the heads of most language models do, is left out unless a target
    is its very name, which is refused; `pruning_report` says which. Masks are all applied, or none.

    Args:
        model: any PyTorch model.
        sparsity: fraction of weights to mask, in [0, 1), or one for each layer by name, as `allocate_sparsity` gives
            them. "N:M" structures imply it.
        batches: calibration batches, for all criteria but "magnitude". For "wanda" and "sparsegpt", keyword arguments
            of the model's forward; with an "attention_mask", padding does not count. For "taylor", "fisher" and
            "obert", what `loss` takes.
        criterion: "magnitude"; "wanda": magnitude times the norm of the input that a weight multiplies; "taylor": the
            change of the loss without the weight, to first order; "fisher": to second order; "sparsegpt" and "obert",
            which also correct the weights that stay: as `prune_sparsegpt` and `prune_obert` with their defaults.
        loss: for "taylor", "fisher" and "obert", a function of the model and a batch that returns a scalar; None: the
            loss in the model's output, for batches that are keyword arguments of its forward.
        scope: "row" masks this fraction in every output, "layer" in every layer, "global" over all layers together;
            None: "row" for wanda, else "layer". Not for "sparsegpt" and "obert", which prune layer by layer.
        threshold: instead of a sparsity: mask weights whose score is below it.
        mask_structure: "unstructured", "N:M" (N kept of every M consecutive inputs) or "RxC" blocks (R outputs of C
            inputs are kept or masked together).
        targets: layers to prune: class names, module names or "re:" patterns. "Linear" stands for all linear layers:
            those of GPT-2 (`Conv1D`) too, each matrix of the experts of a mixture (`experts.down_proj.3`) and of
            `nn.MultiheadAttention` (`self_attn.q_proj`). The masks of the latter are on the parameter that holds them.
        ignore: layers to leave out, in the same notation.
        floor: least sparsity of every layer when the scope is "global", at most `sparsity`.
        ceiling: largest sparsity of every layer when the scope is "global", at least `sparsity`. Both bounds hold
            exactly; where layers are so small that whole weights do not add up, the total gives way.

    Returns:
        Layer name -> the layer's sparsity now.

    Raises:
        TypeError: `targets` or `ignore` is a string.
        ValueError: an argument is out of range, arguments contradict each other, a target matches nothing, the loss is
            no scalar or misses, a weight is shared with a module that is not selected, is computed before each call
            (torch.nn.utils.prune) or has no values (the meta device).

    >>> from sparsekit import finalize
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> prune(model, 0.5, ignore=["2"])
    {'0': 0.5}
    >>> int((finalize(model)[0].weight == 0).sum())
    16
    """
    method = find_method(criterion, weight_methods())
    chosen: dict[str, Any] = {"targets": targets, "ignore": ignore, "mask_structure": mask_structure}
    if method.function is None:
        chosen |= {"scope": scope, "threshold": threshold, "floor": floor, "ceiling": ceiling}
        return _mask_lowest(model, sparsity, batches, method, loss, **chosen)
    _check_layer_by_layer(method, scope, threshold, floor, ceiling)
    check_needs(method, batches, loss)
    chosen |= {"loss": loss} if method.needs_loss else {}
    reached: dict[str, float] = method.function(model, sparsity, batches, **chosen)
    return reached
