"""Int4 rounding as a parametrization: training updates the original weight, layers compute with the rounded one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.introspect.dense_classes import is_conv1d
from sparsekit.introspect.int4_scales import each_scale

LEAST, MOST = -8, 7


def round_to_int4(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Round a weight to the nearest multiples of scales, from -8 to 7.

    Args:
        weight: any shape.
        scales: positive, broadcastable to the weight.
    """
    return torch.clamp(torch.round(weight / scales), LEAST, MOST) * scales


class _StraightThrough(torch.autograd.Function):
    """Straight-through estimator: rounds, and passes the gradient through, except where the weight was clipped.

    Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
    Computation", arXiv 1308.3432.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, scales)
        return round_to_int4(weight, scales)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        weight, scales = ctx.saved_tensors
        inside = (weight >= (LEAST - 0.5) * scales) & (weight <= (MOST + 0.5) * scales)
        return gradient * inside, None


class Int4Rounding(nn.Module):
    """Parametrization of a weight that rounds it to int4, with a straight-through gradient.

    Args:
        scales: float32, shape [out_features, groups].
        turned: whether the weight is [in_features, out_features], as in a `Conv1D`.
    """

    scales: torch.Tensor

    def __init__(self, scales: torch.Tensor, turned: bool = False) -> None:
        super().__init__()
        self.turned = turned
        self.register_buffer("scales", scales)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as multiples of its scales."""
        scales = each_scale(self.scales, weight.numel() // self.scales.shape[0])
        each = (scales.T if self.turned else scales).to(weight.dtype)
        rounded: torch.Tensor = _StraightThrough.apply(weight, each)  # type: ignore[no-untyped-call]
        return rounded

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What to store when the weight is assigned."""
        return weight


def rounding_of(module: nn.Module, name: str = "weight") -> Int4Rounding | None:
    """Rounding of a module's parameter; None if there is none."""
    if not parametrize.is_parametrized(module, name):
        return None
    found = [step for step in module.parametrizations[name] if isinstance(step, Int4Rounding)]  # type: ignore[index]
    return found[0] if found else None


def apply_rounding(module: nn.Module, scales: torch.Tensor) -> None:
    """Round the module's weight, replacing existing scales.

    Args:
        module: a linear layer or a `Conv1D`.
        scales: float32, shape [out_features, groups].
    """
    current = rounding_of(module)
    if current is not None:
        current.scales.copy_(scales)
    else:
        parametrize.register_parametrization(module, "weight", Int4Rounding(scales, is_conv1d(module)))
