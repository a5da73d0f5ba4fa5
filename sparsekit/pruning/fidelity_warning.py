"""Warn if pruning moved a model's outputs far from the dense model's on the calibration batches."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sparsekit.fidelity import FidelityMeter, evaluating, floats_in, fresh

P = ParamSpec("P")
Result = TypeVar("Result")

#: Rows of the first batch whose outputs are compared: logits over a vocabulary are large.
_ROWS = 4
#: Whether an outer call already compares, since `prune` calls other pruning functions.
_comparing: ContextVar[bool] = ContextVar("comparing", default=False)


def _some_rows(batches: Any) -> dict[str, Any] | None:
    """The first rows of the first batch; None if batches are not keyword arguments of a model."""
    batch = batches[0] if isinstance(batches, Sequence) and len(batches) else None
    if not isinstance(batch, Mapping):
        return None
    rows = {len(value) for value in batch.values() if isinstance(value, torch.Tensor) and value.ndim}
    cut = len(rows) == 1  # else not all entries have rows as their first dimension
    return {name: value[:_ROWS] if cut and isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _has_values(model: nn.Module) -> bool:
    """Whether a model has values; `prune` refuses others."""
    if not isinstance(model, nn.Module):
        return False
    return not any(is_lazy(tensor) or tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def _outputs(model: nn.Module, batch: Mapping[str, Any]) -> list[torch.Tensor]:
    with evaluating(model):
        return [tensor.clone() for tensor in floats_in(model(**fresh(batch)))]


def _warn_if_far(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], mask: torch.Tensor | None) -> None:
    meter = FidelityMeter()
    meter.add(found, wanted, mask)
    if meter.result().far:
        warnings.warn(
            f"outputs moved far from the dense model's on the first batch ({meter.result()}): train the pruned model, "
            "such as by distillation, or prune less",
            stacklevel=3,
        )


def warns_if_far(prune: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function that prunes its argument `model`: warn if outputs on its `batches` moved far.

    Nothing is compared without batches, or with a `loss`, whose batches can be anything.
    """
    signature = inspect.signature(prune)

    @functools.wraps(prune)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        given = signature.bind(*args, **kwargs).arguments
        batch = None if given.get("loss") is not None else _some_rows(given.get("batches"))
        if batch is None or _comparing.get() or not _has_values(given["model"]):
            return prune(*args, **kwargs)
        wanted = _outputs(given["model"], batch)
        token = _comparing.set(True)
        try:
            result = prune(*args, **kwargs)
        finally:
            _comparing.reset(token)
        if wanted:
            _warn_if_far(_outputs(given["model"], batch), wanted, batch.get("attention_mask"))
        return result

    return run
