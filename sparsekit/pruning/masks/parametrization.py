"""Masks as parametrizations: the weight is `original * mask` through training, until `finalize` bakes the mask in."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.introspect.int4_scales import keep_scales
from sparsekit.pruning.layers import oriented
from sparsekit.pruning.masks.int4_rounding import Int4Rounding, rounding_of


class Mask(nn.Module):
    """Parametrization of a weight that keeps pruned entries at zero.

    Args:
        mask: bool, the weight's shape; True keeps a weight.
    """

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with its pruned entries at zero (also where the original holds inf or NaN)."""
        return torch.where(self.mask, weight, 0.0)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """What to store when the weight is assigned."""
        return weight


def mask_of(module: nn.Module, name: str = "weight") -> torch.Tensor | None:
    """Mask of a module's weight, or of another parameter; None if there is none."""
    if not parametrize.is_parametrized(module, name):
        return None
    masks = [step.mask for step in module.parametrizations[name] if isinstance(step, Mask)]  # type: ignore[index]
    return masks[0] if masks else None


def masked_parameters(module: nn.Module) -> list[str]:
    """Names of a module's own parameters that have a mask."""
    steps: Any = getattr(module, "parametrizations", ())
    return [name for name in steps if mask_of(module, name) is not None]


def apply_mask(module: nn.Module, mask: torch.Tensor, *tied: nn.Module, name: str = "weight") -> None:
    """Mask the module's weight, replacing an existing mask.

    Args:
        module: a linear layer or a `Conv1D`; any module that has the parameter `name`.
        mask: bool, True keeps a weight; shape [out_features, in_features], or the shape of another parameter.
        tied: other modules that hold the same weight; they share the mask.
        name: of the parameter.
    """
    stored = (oriented(module, mask) if name == "weight" else mask).contiguous()
    step = Mask(stored)
    for holder in (module, *tied):
        current = mask_of(holder, name)
        if current is None:
            parametrize.register_parametrization(holder, name, step)
        else:
            current.copy_(stored)


def assign_masked(module: nn.Module, weight: torch.Tensor, mask: torch.Tensor) -> None:
    """Give a module a new weight and its mask, both [out_features, in_features]; the module keeps its data type."""
    apply_mask(module, mask)
    old: torch.Tensor = module.weight  # type: ignore[assignment]
    module.weight = oriented(module, weight.to(old.dtype)).contiguous()  # the parametrization stores it as its original


def _unshare_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own.

    torch puts the parametrized weight's property on a class made for the module, which copies of the module share;
    removing the parametrization deletes the property and would break the copies.
    """
    shared = type(module)
    module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))


def finalize(model: nn.Module) -> nn.Module:
    """Bake all masks and rounding in: weights become plain parameters with zeros. Returns the model.

    Raises:
        ValueError: a masked weight has other parametrizations too; remove those first.
    """
    masked = [(path, module, name) for path, module in model.named_modules() for name in masked_parameters(module)]
    for path, module, name in masked:
        if not all(isinstance(step, Mask | Int4Rounding) for step in module.parametrizations[name]):
            raise ValueError(f"{path}.{name} has other parametrizations beside its mask; remove them first")
    for _, module, name in masked:
        remove_mask(module, name)
    return model


def remove_mask(module: nn.Module, name: str = "weight") -> None:
    """Bake the mask and rounding of one parameter in; scales stay attached to the module."""
    rounding = rounding_of(module, name)
    _unshare_class(module)
    parametrize.remove_parametrizations(module, name)
    if rounding is not None:
        keep_scales(module, rounding.scales)
