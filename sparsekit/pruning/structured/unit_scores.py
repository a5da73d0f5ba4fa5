"""Scores of neurons and heads: norm of weights, mean activation, first-order change of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparsekit.progress import Progress
from sparsekit.pruning.calibration.batches import token_rows
from sparsekit.pruning.calibration.gradients import Loss, model_loss
from sparsekit.pruning.layers import weight_of
from sparsekit.pruning.structured.units import Units

Scores = dict[str, torch.Tensor]
#: (model, units, calibration batches, loss) -> a score for each unit; the lowest are removed.
UnitScore = Callable[[nn.Module, Sequence[Units], Sequence[Any], Loss | None], Scores]
#: (index of a watched layer, its input) -> the input to use instead, None to keep it.
See = Callable[[int, torch.Tensor], torch.Tensor | None]


def _sums_by_unit(values: torch.Tensor, units: Units, runs: Sequence[int]) -> torch.Tensor:
    """Sum a layer's per-feature values over each unit, float64 [units]; features that all units share are left out."""
    parts = values[: sum(runs) * units.count].split([size * units.count for size in runs])
    return torch.stack([part.reshape(units.count, -1).sum(1) for part in parts]).sum(0).cpu()


def weight_norms(model: nn.Module, units: Sequence[Units], batches: Sequence[Any], loss: Loss | None) -> Scores:
    """Norm of all weights into a unit and out of it (for filters: Li et al., arXiv 1608.08710, section 3.1)."""
    scores = {}
    for one in units:
        total = torch.zeros(one.count, dtype=torch.float64)
        for producer in one.producers:
            squares = weight_of(model.get_submodule(producer.layer)).double().square().sum(1)
            total += _sums_by_unit(squares, one, producer.runs)
        squares = weight_of(model.get_submodule(one.consumer)).double().square().sum(0)
        scores[one.name] = (total + _sums_by_unit(squares, one, [one.size])).sqrt()
    return scores


@contextmanager
def _watched(model: nn.Module, layers: Sequence[str], see: See) -> Iterator[None]:
    """Put the model in eval mode and pass the inputs of some layers to `see`."""

    def hook(number: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def watch(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            changed = see(number, args[0])
            return None if changed is None else (changed, *args[1:])

        return watch

    was_training = model.training
    handles = [model.get_submodule(layer).register_forward_pre_hook(hook(n)) for n, layer in enumerate(layers)]
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()


def _check_reached(units: Sequence[Units], counts: Sequence[int]) -> None:
    idle = [one.consumer for one, count in zip(units, counts, strict=True) if not count]
    if idle:
        raise ValueError(f"{', '.join(idle)} did not run on the calibration batches; put into ignore")


def _tokens(batch: Any) -> torch.Tensor | None:
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return None if mask is None else mask.bool()


def mean_activations(model: nn.Module, units: Sequence[Units], batches: Sequence[Any], loss: Loss | None) -> Scores:
    """Mean absolute value of a unit at the input of the layer that consumes it, over tokens that are not padding."""
    sums = [torch.zeros(one.count * one.size, dtype=torch.float64) for one in units]
    counts = [0] * len(units)
    tokens: torch.Tensor | None = None

    def see(number: int, input: torch.Tensor) -> None:
        rows = token_rows(input.detach(), tokens)
        sums[number] += rows.double().abs().sum(0).cpu()
        counts[number] += len(rows)

    with _watched(model, [one.consumer for one in units], see), torch.no_grad():
        for batch in Progress(batches, title="calibrate", unit="batches"):
            tokens = _tokens(batch)
            model(**batch)
    _check_reached(units, counts)
    return {
        one.name: _sums_by_unit(total / count, one, [one.size]) / one.size
        for one, total, count in zip(units, sums, counts, strict=True)
    }


def _unit_changes(product: torch.Tensor, tokens: torch.Tensor | None, units: Units) -> torch.Tensor:
    """Sum over examples of the absolute first-order change of the loss without a unit, shape [units].

    Args:
        product: activation times gradient, shape [examples, ..., features].
        tokens: True for tokens that are not padding.
        units: the units that the features belong to.
    """
    if tokens is not None and product.shape[:-1] == tokens.shape:
        product = product * tokens.unsqueeze(-1)
    features = product.double().reshape(product.shape[0], -1, units.count, units.size)
    return features.sum((1, 3)).abs().sum(0).cpu()


def loss_changes(model: nn.Module, units: Sequence[Units], batches: Sequence[Any], loss: Loss | None) -> Scores:
    """First-order estimate of how the loss of an example changes without a unit: |activation * gradient|.

    The product is summed over the tokens of an example and the features of a unit before its absolute value is taken
    (Molchanov et al., arXiv 1611.06440, equation 8, for feature maps; Michel et al., arXiv 1905.10650, equation 2, for
    heads). Examples are summed and batches averaged: if the loss is a mean over examples, a score is the mean change of
    that loss. Gradients stored in parameters are not touched, and frozen models can be scored.
    """
    seen: list[tuple[int, torch.Tensor]] = []

    def see(number: int, input: torch.Tensor) -> torch.Tensor:
        followed = input if input.requires_grad else input.detach().requires_grad_()
        seen.append((number, followed))
        return followed

    totals = [torch.zeros(one.count, dtype=torch.float64) for one in units]
    counts = [0] * len(units)
    with _watched(model, [one.consumer for one in units], see), torch.enable_grad():
        for batch in Progress(batches, title="calibrate", unit="batches"):
            seen.clear()
            gradients = _gradients((loss or model_loss)(model, batch), [input for _, input in seen])
            for (number, input), gradient in zip(seen, gradients, strict=True):
                counts[number] += 1
                if gradient is not None:
                    totals[number] += _unit_changes(input.detach() * gradient, _tokens(batch), units[number])
    _check_reached(units, counts)
    return {one.name: total / len(batches) for one, total in zip(units, totals, strict=True)}


def _gradients(value: Any, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
    if not inputs:
        return []
    if not isinstance(value, torch.Tensor) or value.dim() or not value.requires_grad:
        got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"loss must return a scalar tensor that depends on the model, got {got}")
    return torch.autograd.grad(value, inputs, allow_unused=True)


def check_values(model: nn.Module, units: Sequence[Units]) -> None:
    """Raise ValueError if a layer's weight is on the meta device, without values to score units by."""
    for layer in (layer for one in units for layer in one.layers):
        if weight_of(model.get_submodule(layer)).is_meta:
            raise ValueError(f"{layer}.weight has no values yet (it is on the meta device); load the model first")
