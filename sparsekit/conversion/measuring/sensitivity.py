"""Quantization error of each layer's outputs, measured on batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import torch
from torch import nn

from sparsekit.conversion.measuring.layouts import in_every_layout
from sparsekit.nn import SparseLinear
from sparsekit.pruning.calibration.batches import Batch


class _Error:
    """Squared error of a sparse layer's outputs, summed over calls."""

    def __init__(self, sparse: SparseLinear) -> None:
        self.sparse = sparse
        self.difference = 0.0
        self.size = 0.0
        self.calls = 0

    def add(self, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.calls += 1
        found = self.sparse(inputs[0])
        self.difference += (found - output).double().square().sum().item()
        self.size += output.double().square().sum().item()

    @property
    def relative(self) -> float:
        """Norm of the error relative to the norm of the outputs; 0 if all outputs are zero."""
        return math.sqrt(self.difference / self.size) if self.size else 0.0


def _packed(layer: nn.Module, dtype: str, every_layout: bool) -> dict[str, SparseLinear]:
    """Sparse layer by layout."""
    if every_layout:
        return in_every_layout(layer, dtype)
    preferred = SparseLinear.from_linear(layer, dtype=dtype)
    return {preferred.layout: preferred}


def _hook(error: _Error) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    return lambda _, inputs, output: error.add(inputs, output)


def output_errors(
    model: nn.Module, layers: Mapping[str, nn.Module], dtype: str, batches: Iterable[Batch], *, every_layout: bool
) -> dict[str, dict[str, float]]:
    """Relative error of every layer's outputs in this type: norm of the error over norm of the outputs.

    Errors are per layer, on the inputs in the unconverted model. Layers that do not run or whose weights the type
    cannot hold are omitted.

    Args:
        model: model to run on each batch, without gradients.
        layers: layers to measure, by name.
        dtype: as in `SparseLinear.from_linear`.
        batches: keyword arguments of the model's forward.
        every_layout: whether to measure all candidate layouts or only the preferred one. Only some layouts quantize the
            inputs of int8 layers.

    Returns:
        Errors by name and layout.
    """
    errors: dict[str, dict[str, _Error]] = {}
    for name, layer in layers.items():
        with suppress(ValueError):  # this type cannot hold the weight
            errors[name] = {layout: _Error(sparse) for layout, sparse in _packed(layer, dtype, every_layout).items()}
    handles = [
        layers[name].register_forward_hook(_hook(error)) for name, found in errors.items() for error in found.values()
    ]
    try:
        with torch.inference_mode():
            for batch in batches:
                model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    ran = {name: {layout: error for layout, error in found.items() if error.calls} for name, found in errors.items()}
    return {name: {layout: error.relative for layout, error in found.items()} for name, found in ran.items() if found}
