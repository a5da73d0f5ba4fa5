"""`prune`: choose layers, score, mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.criteria import fisher, magnitude, taylor, wanda
from sparsekit.pruning.criteria.statistics import input_norms
from sparsekit.pruning.gradients import Loss, mean_squared_gradients
from sparsekit.pruning.layers import group_prunable, weight_of
from sparsekit.pruning.masks import check_scope, masks_by_sparsity, masks_by_threshold, structure_sparsity
from sparsekit.pruning.outcome import warns_if_far
from sparsekit.pruning.parametrization import apply_mask
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.surgery import undo_on_failure

_SCOPES = ("row", "layer", "global")


@dataclass(frozen=True)
class Criterion:
    """How weights are scored, and among which of them the lowest go."""

    score: Callable[[torch.Tensor, Any], torch.Tensor]  # of a weight and its layer's statistics, in the weight's shape
    scope: str  # what `prune` takes unless told
    statistics: Callable[..., Mapping[str, Any]] | None = None  # of a model, its layers by name and batches
    uses_loss: bool = False  # whether the statistics are of a loss too, their fourth argument


#: Criteria by name.
CRITERIA = {
    "magnitude": Criterion(magnitude.score, "layer"),
    "wanda": Criterion(wanda.score, "row", input_norms),
    "taylor": Criterion(taylor.score, "layer", mean_squared_gradients, uses_loss=True),
    "fisher": Criterion(fisher.score, "layer", fisher.inverse_diagonals, uses_loss=True),
}


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless `sparsity` is in [0, 1)."""
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}; 0.8 makes 80% of the weights zero")


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


def sparsities_of(
    layers: Iterable[str], sparsity: float | Mapping[str, float] | None, mask_structure: str
) -> dict[str, float]:
    """Every layer's sparsity to reach.

    Args:
        layers: names of those that are to be pruned.
        sparsity: one for all, or by layer; None where the structure prescribes it.
        mask_structure: as in `prune`.

    Raises:
        ValueError: as `wanted_sparsity`; sparsities by layer are of other layers.
    """
    if not isinstance(sparsity, Mapping):
        return dict.fromkeys(layers, wanted_sparsity(sparsity, None, mask_structure) or 0.0)
    wanted, given = set(layers), set(sparsity)
    for these, what in ((wanted - given, "no sparsity for"), (given - wanted, "no layer to prune of the name")):
        if these:
            more = f" and {len(these) - 3} more" if len(these) > 3 else ""
            raise ValueError(
                f"there is {what} {', '.join(sorted(these)[:3])}{more}; sparsities by layer need one for each that "
                "targets and ignore select"
            )
    for name, each in sparsity.items():
        try:
            wanted_sparsity(each, None, mask_structure)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return dict(sparsity)


def _wanted(
    groups: Sequence[Mapping[str, nn.Module]],
    sparsity: float | Mapping[str, float] | None,
    threshold: float | None,
    mask_structure: str,
) -> float | Mapping[str, float] | None:
    if not isinstance(sparsity, Mapping):
        return wanted_sparsity(sparsity, threshold, mask_structure)
    if threshold is not None:
        raise ValueError("threshold stands alone: leave out sparsity")
    found = sparsities_of([name for group in groups for name in group], sparsity, mask_structure)
    for group in groups:
        if len({found[name] for name in group}) > 1:
            parts = ", ".join(f"{name} {found[name]}" for name in group)
            raise ValueError(f"layers that share one weight need one sparsity, got {parts}")
    return found


def _check_bounds(floor: float, ceiling: float, sparsity: float | Mapping[str, float] | None, scope: str) -> None:
    if sparsity is not None:
        check_scope(scope, sparsity)
    if (floor, ceiling) == (0.0, 1.0):
        return
    if scope != "global" or sparsity is None or isinstance(sparsity, Mapping):
        got = "one for each layer" if isinstance(sparsity, Mapping) else sparsity
        raise ValueError(f"floor and ceiling need a sparsity and scope='global', got {got} and scope={scope!r}")
    if not 0.0 <= floor <= sparsity <= ceiling <= 1.0:
        raise ValueError(
            f"no masks of sparsity {sparsity} have between {floor} and {ceiling} in every layer; it must be "
            "0 <= floor <= sparsity <= ceiling <= 1"
        )


def find_criterion(criterion: str) -> Criterion:
    """A criterion by its name.

    Raises:
        ValueError: there is none.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    return CRITERIA[criterion]


def _check_needs(criterion: str, batches: Sequence[Any], loss: Loss | None) -> None:
    found = CRITERIA[criterion]
    if (found.statistics is None) == bool(batches):
        raise ValueError(f"criterion {criterion!r} needs {'no' if batches else 'calibration'} batches")
    if loss is not None and not found.uses_loss:
        raise ValueError(f"criterion {criterion!r} takes no loss; leave it out")


def score_groups(
    model: nn.Module,
    groups: Sequence[Mapping[str, nn.Module]],
    criterion: Criterion,
    batches: Sequence[Any],
    loss: Loss | None,
) -> dict[str, torch.Tensor]:
    """Scores of every group's weight under the name of its first layer: the mean over the layers that share it."""
    layers = {name: layer for group in groups for name, layer in group.items()}
    statistics: Mapping[str, Any] = dict.fromkeys(layers)
    if criterion.statistics is not None:
        statistics = criterion.statistics(model, layers, batches, *([loss] if criterion.uses_loss else []))
    scores = {}
    for group in groups:
        found = [criterion.score(weight_of(layer), statistics[name]) for name, layer in group.items()]
        scores[next(iter(group))] = found[0] if len(found) == 1 else torch.stack(found).mean(0)
    return scores


@warns_if_far
@on_split_modules
def prune(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None = None,
    *,
    scope: str | None = None,
    threshold: float | None = None,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    mask_structure: str = "unstructured",
    criterion: str = "magnitude",
    batches: Sequence[Any] = (),
    loss: Loss | None = None,
    floor: float = 0.0,
    ceiling: float = 1.0,
) -> dict[str, float]:
    """Mask the least important weights of a model's linear layers, in place.

    The masks stay through later training; `finalize` bakes them in. Pruning again replaces the masks, and what is
    masked already scores lowest. Layers that share one weight share its mask, made from the mean of their scores. A
    layer that shares its weight with an embedding, as the heads of most language models do, is left out unless a target
    is its very name, which is refused; `pruning_report` says which. Masks are all applied, or none.

    Args:
        model: any PyTorch model.
        sparsity: fraction of weights to mask, in [0, 1), or one for each layer by name, as `allocate_sparsity` gives
            them. "N:M" structures imply it.
        scope: "row" masks this fraction in every output, "layer" in every layer, "global" over all layers together;
            None: "row" for wanda, else "layer".
        threshold: instead of a sparsity: mask weights whose score is below it.
        targets: layers to prune: class names, module names or "re:" patterns. "Linear" stands for all linear layers:
            those of GPT-2 (`Conv1D`) too, each matrix of the experts of a mixture (`experts.down_proj.3`) and of
            `nn.MultiheadAttention` (`self_attn.q_proj`). The masks of the latter are on the parameter that holds them.
        ignore: layers to leave out, in the same notation.
        mask_structure: "unstructured", "N:M" (N kept of every M consecutive inputs) or "RxC" blocks (R outputs of C
            inputs are kept or masked together).
        criterion: "magnitude"; "wanda": magnitude times the norm of the input that a weight multiplies; "taylor": the
            change of the loss without the weight, to first order; "fisher": to second order, see `prune_obert`,
            which corrects the other weights too.
        batches: what criteria but magnitude are measured on. For wanda, keyword arguments of the model's forward; with
            an "attention_mask", padding does not count. For taylor and fisher, what `loss` takes.
        loss: for taylor and fisher, a function of the model and a batch that returns a scalar; None: the loss in the
            model's output, for batches that are keyword arguments of its forward.
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
    >>> prune(model, sparsity=0.5, ignore=["2"])
    {'0': 0.5}
    >>> int((finalize(model)[0].weight == 0).sum())
    16
    """
    groups = group_prunable(model, targets, ignore)
    wanted = _wanted(groups, sparsity, threshold, mask_structure)
    chosen = find_criterion(criterion)
    _check_needs(criterion, batches, loss)
    scope = chosen.scope if scope is None else scope
    if scope not in _SCOPES:
        raise ValueError(f"scope must be one of {', '.join(_SCOPES)}, got {scope!r}")
    _check_bounds(floor, ceiling, wanted, scope)
    scores = score_groups(model, groups, chosen, batches, loss)
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
