"""Remove units or change nothing: the pruned model's outputs must equal the original's with these units zeroed."""

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
    """Narrow a freshly built model to the shapes that its config records."""
    resize_to(fresh, recorded_shapes(fresh.config))


def _expected(
    model: nn.Module, trial: Trial, units: Sequence[Units], kept: Mapping[str, torch.Tensor]
) -> list[torch.Tensor] | None:
    """Outputs of the model with the units to remove zeroed; None if they cannot be zeroed."""
    gone = {one.consumer: lost_inputs(one, kept[one.name]) for one in units if len(kept[one.name]) < one.count}
    try:
        with zeroed(model, gone) as ran:
            outputs = trial.outputs(model)
    except failures():
        return None
    return outputs if ran == gone.keys() else None  # the inputs of a layer that was never called were not zeroed


def _is_sequential(model: nn.Module, one: Units) -> bool:
    """Whether the layers follow each other in one `nn.Sequential`, so that nothing else can read the units."""
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
    """Context in which the body removes units: check the result afterwards, and undo everything on failure.

    Checked are the outputs on a tiny input, taken from the batches or generated from the signature of the model's
    forward, and that the config rebuilds the model. If no input can be found, a warning says so.

    Args:
        model: the model that the body changes.
        units: the units among which it removes some.
        kept: name of each -> indices of the units to keep.
        batches: as in `prune_neurons`.
        loss: as in `prune_neurons`.
        what: completes the message "it cannot run ...".

    Yields:
        The description of the model by its config, from before the change.

    Raises:
        ValueError: the model cannot run, its outputs are wrong, or its config would not rebuild it.
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
