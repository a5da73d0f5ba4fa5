"""Remove units all or nothing: the narrow model's outputs must be the wide one's with these units at zero."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparsekit.introspect.model_configs import recorded_shapes
from sparsekit.pruning.calibration.gradients import Loss
from sparsekit.pruning.structured.units import Units, lost_inputs
from sparsekit.pruning.structured.widths import resize_to
from sparsekit.surgery import Description, Trial, failures, undo_on_failure, zeroed


def _fit(fresh: nn.Module) -> None:
    """Make a model of a config as narrow as the config says."""
    resize_to(fresh, recorded_shapes(fresh.config))


def _expected(
    model: nn.Module, trial: Trial, units: Sequence[Units], kept: Mapping[str, torch.Tensor]
) -> list[torch.Tensor] | None:
    """Outputs of the model with the units to remove at zero; None where they cannot be set to zero."""
    gone = {one.consumer: lost_inputs(one, kept[one.name]) for one in units if len(kept[one.name]) < one.count}
    try:
        with zeroed(model, gone) as ran:
            outputs = trial.outputs(model)
    except failures():
        return None
    return outputs if ran == gone.keys() else None  # a layer that was not called cannot be told to read zeros


def _is_sequential(model: nn.Module, one: Units) -> bool:
    """Whether a unit's layers follow each other in one `nn.Sequential`, where nothing else can read it."""
    places = {layer.rpartition(".")[0] for layer in one.layers}
    return len(places) == 1 and isinstance(model.get_submodule(next(iter(places))), nn.Sequential)


@contextmanager
def removing(
    model: nn.Module,
    units: Sequence[Units],
    kept: Mapping[str, torch.Tensor],
    batches: Sequence[Any],
    loss: Loss | None,
    what: str,
) -> Iterator[Description]:
    """Have the body remove units, check the result, and undo everything where that fails.

    Checked are the outputs on a tiny input, from the batches or made from what the model's forward takes, and that the
    config builds the model. Where no input is known, a warning says so.

    Args:
        model: what the body changes.
        units: what it changes it at.
        kept: name of each -> numbers of the units that stay.
        batches: as in `prune_neurons`.
        loss: as in `prune_neurons`.
        what: goes on "it cannot run ...".

    Yields:
        What the config said of the model before.

    Raises:
        ValueError: the model fails, has other outputs, or is not what its config would build.
    """
    description = Description(model, _fit)
    if all(len(kept[one.name]) == one.count for one in units):
        yield description
        return
    trial = Trial(model, batches, loss)
    with undo_on_failure(model):
        expected = _expected(model, trial, units, kept) if trial.runs else None
        yield description
        trial.check(model, expected, what)
        description.check(model)
    if not trial.runs and not all(_is_sequential(model, one) for one in units):
        warnings.warn(
            f"{type(model).__name__} was not run {what}, since no input for it is known: give batches, or try it "
            "before it is trained or saved",
            stacklevel=4,
        )
