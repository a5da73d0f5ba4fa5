"""Quantization error of each layer's outputs, measured on batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from sparsekit.nn import SparseLinear
from sparsekit.pruning.calibration.batches import Batch


class _Error:
    """Squared differences of a layer's outputs from those of its sparse self, summed over calls."""

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
        """Norm of the differences over that of the outputs; 0 where all of them are zero."""
        return math.sqrt(self.difference / self.size) if self.size else 0.0


def _hook(error: _Error) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
    return lambda _, inputs, output: error.add(inputs, output)


def output_errors(
    model: nn.Module, layers: Mapping[str, nn.Module], dtype: str, batches: Iterable[Batch]
) -> dict[str, float]:
    """Relative error of every layer's outputs in this type: norm of the differences over norm of the outputs.

    Every layer is looked at by itself: its inputs are those of the model as it is. Layers whose weights cannot take the
    values are left out, and those that do not run.

    Args:
        model: run once for each batch, without gradients.
        layers: the model's layers to look at, by name.
        dtype: as in `SparseLinear.from_linear`.
        batches: keyword arguments of the model's forward.
    """
    errors = {}
    for name, layer in layers.items():
        try:
            errors[name] = _Error(SparseLinear.from_linear(layer, dtype=dtype))
        except ValueError:  # the weight cannot take them
            continue
    handles = [layers[name].register_forward_hook(_hook(error)) for name, error in errors.items()]
    try:
        with torch.inference_mode():
            for batch in batches:
                model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: error.relative for name, error in errors.items() if error.calls}
