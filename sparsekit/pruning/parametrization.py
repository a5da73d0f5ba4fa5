"""Masks that stay: the weight is `original * mask` through later training, until `finalize` bakes the mask in."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.pruning.layers import oriented


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


def mask_of(module: nn.Module) -> torch.Tensor | None:
    """The mask on a module's weight, None where there is none."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    masks = [step.mask for step in module.parametrizations.weight if isinstance(step, Mask)]  # type: ignore[union-attr]
    return masks[0] if masks else None


def apply_mask(module: nn.Module, mask: torch.Tensor, *tied: nn.Module) -> None:
    """Mask the module's weight; a mask that is already there is replaced.

    Args:
        module: a linear layer or a `Conv1D`.
        mask: bool, shape [out_features, in_features]; True keeps a weight.
        tied: other modules that hold the same weight; they share the mask.
    """
    stored = oriented(module, mask).contiguous()
    step = Mask(stored)
    for holder in (module, *tied):
        current = mask_of(holder)
        if current is None:
            parametrize.register_parametrization(holder, "weight", step)
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
    """Bake all masks in: weights become plain parameters with zeros. Returns the model.

    Raises:
        ValueError: a masked weight has other parametrizations too; remove those first.
    """
    masked = {name: module for name, module in model.named_modules() if mask_of(module) is not None}
    for name, module in masked.items():
        if len(module.parametrizations.weight) > 1:
            raise ValueError(f"{name}.weight has other parametrizations beside its mask; remove them first")
    for module in masked.values():
        _unshare_class(module)
        parametrize.remove_parametrizations(module, "weight")
    return model
