"""Modules for fused activation functions: the sparse layer, the activation, `nn.Sequential`."""

from __future__ import annotations

import torch
from torch import nn

from sparsekit import ops
from sparsekit.introspect.hooks import is_plain_call
from sparsekit.nn import SparseLinear


class FusedLinear(SparseLinear):
    """A sparse layer that applies its `activation` only when called through a `FusedActivation`, not in `forward`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input @ weight.T + bias`."""
        return ops.linear(input, self.packed, self.bias, self.out_features, None)

    def activated(self, input: torch.Tensor) -> torch.Tensor:
        """`activation(input @ weight.T + bias)`."""
        return SparseLinear.forward(self, input)


class FusedActivation(nn.Module):
    """Replaces an activation function that a sparse layer may apply, and computes the same.

    Args:
        original: the activation function.
        name: its name in `SparseLinear.activation`, such as "gelu".
    """

    def __init__(self, original: nn.Module, name: str) -> None:
        super().__init__()
        self.original = original
        self.name = name

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The activation function of the input."""
        result: torch.Tensor = self.original(input)
        return result

    def of_layer(self, layer: nn.Module, input: torch.Tensor) -> torch.Tensor:
        """`self(layer(input))`, in one step unless one of them has hooks."""
        fits = type(layer) is FusedLinear and layer.activation == self.name
        if fits and is_plain_call(layer, self, self.original):
            result: torch.Tensor = layer.activated(input)  # type: ignore[operator]
        else:
            result = self(layer(input))
        return result


class FusedSequential(nn.Sequential):
    """An `nn.Sequential` whose sparse layers apply the activation functions after them."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `nn.Sequential.forward`."""
        layer = None  # a layer that is still to be called
        for module in self._modules.values():
            if layer is not None and isinstance(module, FusedActivation):
                input, layer = module.of_layer(layer, input), None
                continue
            input = input if layer is None else layer(input)
            layer = module if type(module) is FusedLinear else None
            input = input if layer is not None else module(input)
        return input if layer is None else layer(input)
