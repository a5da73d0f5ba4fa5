"""`prune_neurons`: remove neurons (hidden units) of MLPs, so that the dense layers around them shrink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from sparsekit.pruning.calibration.gradients import Loss
from sparsekit.pruning.methods import find_unit_score
from sparsekit.pruning.structured.config_widths import WidthEntries, record_shapes
from sparsekit.pruning.structured.narrowing import check_layers
from sparsekit.pruning.structured.neuron_groups import NeuronGroup, check_between, find_groups, units_of
from sparsekit.pruning.structured.removal import removing
from sparsekit.pruning.structured.unit_scores import check_values
from sparsekit.pruning.structured.units import (
    Units,
    check_amount,
    check_units,
    choose_units,
    keep_units,
    select_by_layers,
)
from sparsekit.pruning.structured.widths import set_width_attributes


def _find_units(
    model: nn.Module,
    groups: Sequence[NeuronGroup] | None,
    found: Sequence[NeuronGroup],
    targets: Iterable[str] | None,
    ignore: Iterable[str],
) -> list[Units]:
    """The units that may be pruned, after all checks."""
    given = {group.consumer: group for group in (found if groups is None else groups)}
    if groups is not None and len(given) < len(groups):
        raise ValueError(f"groups must name each consumer once, got {[group.consumer for group in groups]}")
    if not given:
        raise ValueError(
            "found no MLP with known layer names, and no nn.Sequential(Linear, activation, Linear); "
            "give groups=[NeuronGroup(producers=[...], consumer=...)]"
        )
    names = select_by_layers(model, {name: group.layers for name, group in given.items()}, targets, ignore)
    chosen = [given[name] for name in names]
    check_layers(model, [layer for group in chosen for layer in group.layers])
    if groups is None:
        for group in chosen:
            check_between(model, group)
    units = [units_of(model, group) for group in chosen]
    check_units(model, units)
    return units


def prune_neurons(
    model: nn.Module,
    fraction: float | None = None,
    batches: Sequence[Any] = (),
    *,
    threshold: float | None = None,
    criterion: str = "activation",
    loss: Loss | None = None,
    groups: Sequence[NeuronGroup] | None = None,
    targets: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    scope: str = "layer",
    minimum: int = 1,
) -> dict[str, int]:
    """Remove the least important hidden units of a model's MLPs, in place: their layers become smaller dense layers.

    The units' rows and biases are removed from the layers that produce them, and their columns from the layer that
    consumes them; the width of the residual stream does not change. Modules stay the same objects with new, smaller
    parameters, so create optimizers afterwards. A transformers config is updated: its `intermediate_size` (or whatever
    it calls this) if all MLPs have the same new width, else `config.sparsekit_widths`, from which `resize_to` builds a
    model that the weights fit. The result is run and checked, and undone if that fails, as in `prune_heads`.

    Args:
        model: any PyTorch model.
        fraction: fraction of the units to remove, in [0, 1).
        batches: for "activation" and "taylor": keyword arguments of the model's forward; with an "attention_mask",
            padding does not count. With a custom loss, whatever that takes.
        threshold: instead of a fraction: remove units whose score is below it.
        criterion: "activation": mean absolute value of a unit after its activation function, over tokens that are not
            padding; "magnitude": norm of its weights, in and out; "taylor": first-order estimate of how much the loss
            changes without it.
        loss: for "taylor": a function of the model and a batch that returns a scalar; None: the loss in the model's
            output.
        groups: the layers around the hidden units, for models that are not recognized; None: every group that matches
            `neuron_groups.PATTERNS`, and every `nn.Sequential(Linear, activation, Linear)`.
        targets: prune only groups with a layer that matches: class names, module names or "re:" patterns.
        ignore: skip groups with a layer that matches; same patterns.
        scope: "layer" removes the fraction in every MLP; "global" over all of them together, comparing raw scores.
        minimum: least number of units to keep in every MLP.

    Returns:
        Name of the layer that consumes the units -> number of units left.

    Raises:
        TypeError: a layer is not an `nn.Linear` or `Conv1D` (converted, quantized, wrapped), or targets or ignore is a
            string.
        ValueError: an argument is out of range or contradicts another; no group is found; a layer is masked (call
            `finalize` first), shares its weight, or is next to a module with parameters for each unit; or the pruned
            model fails the checks. The model is unchanged then.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> prune_neurons(model, 0.75, criterion="magnitude")
    {'2': 2}
    >>> model[0]
    Linear(in_features=4, out_features=2, bias=True)
    """
    check_amount(fraction, threshold, scope, minimum)
    score_units = find_unit_score(criterion, batches, loss)
    found = find_groups(model)
    units = _find_units(model, groups, found, targets, ignore)
    check_values(model, units)
    scores = score_units(model, units, batches, loss)
    kept = choose_units(scores, fraction, threshold, scope=scope, minimum=minimum)
    with removing(model, units, kept, batches, loss, "without these neurons") as description:
        entries = WidthEntries(model, [group.consumer for group in found])
        changed = [one for one in units if len(kept[one.name]) < one.count]
        for one in changed:
            keep_units(model, one, kept[one.name])
            set_width_attributes(model, one.consumer, one.count)
        covered = entries.write()
        record_shapes(model, [layer for one in changed if one.consumer not in covered for layer in one.layers])
        if covered and changed and description.fault(model) is not None:
            entries.restore()  # the config entry also sizes other layers, such as experts
            record_shapes(model, [layer for one in changed for layer in one.layers])
    return {one.name: len(kept[one.name]) for one in units}
