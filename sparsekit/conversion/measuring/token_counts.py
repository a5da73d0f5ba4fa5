"""Observe how many tokens a model's layers compute per call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low
from typing import Any

import torch
from torch import nn

from sparsekit.fidelity import evaluating, fresh

#: Number of batches to run, each of a different shape.
_BATCHES = 3


def _shapes(batch: Mapping[str, Any]) -> tuple[tuple[str, torch.Size], ...]:
    return tuple((name, value.shape) for name, value in batch.items() if isinstance(value, torch.Tensor))


def token_counts(model: nn.Module, layers: Iterable[nn.Module], batches: Sequence[Mapping[str, Any]]) -> list[int]:
    """Smallest, median and largest number of rows of the layers' inputs on batches.

    Args:
        model: model to run without gradients, on up to three batches of different shapes.
        layers: its linear layers.
        batches: keyword arguments of the model's forward.

    Returns:
        Up to three numbers, ascending; none if no layer ran.
    """
    counts: list[int] = []

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].dim() and inputs[0].numel():
            counts.append(inputs[0].numel() // inputs[0].shape[-1])

    different = list({_shapes(batch): batch for batch in batches}.values())
    handles = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        with evaluating(model), torch.inference_mode():
            for batch in different[:_BATCHES]:
                model(**fresh(batch))
    finally:
        for handle in handles:
            handle.remove()
    return sorted({min(counts), median_low(counts), max(counts)}) if counts else []
