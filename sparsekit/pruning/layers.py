"""The layers that pruning works on, whichever way round they hold their weight, and which of them share one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from sparsekit.selection import is_conv1d, select_matrices, shared_weights, stored_weight


def oriented(layer: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """Turn a tensor from the way the layer holds its weight to [out_features, in_features], or back."""
    return tensor.T if is_conv1d(layer) else tensor


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The layer's weight as [out_features, in_features], masks applied, without gradient."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return oriented(layer, weight.detach())


def group_prunable(model: nn.Module, targets: Iterable[str], ignore: Iterable[str]) -> list[dict[str, nn.Module]]:
    """Layers to prune, by name; those that share one weight are in one group.

    Raises:
        TypeError, ValueError: as `select_matrices`; also when a layer shares its weight with a module that is not
            selected, such as an embedding.
    """
    layers = select_matrices(model, targets, ignore)
    shared = shared_weights(model)
    groups: dict[int, dict[str, nn.Module]] = {}
    for name, layer in layers.items():
        outside = [other for other in shared.get(name, []) if other not in layers]
        if outside:
            raise ValueError(
                f"{name}.weight is shared with {', '.join(outside)}; put {name!r} into ignore, or select all its "
                "holders if they are linear layers"
            )
        weight = stored_weight(layer)
        groups.setdefault(id(layer if weight is None else weight), {})[name] = layer
    return list(groups.values())


def select_prunable(model: nn.Module, targets: Iterable[str], ignore: Iterable[str]) -> dict[str, nn.Module]:
    """Layers to prune, for methods that treat each weight as one layer's own.

    Raises:
        TypeError, ValueError: as `select_matrices`; also when a layer shares its weight with another module.
    """
    groups = group_prunable(model, targets, ignore)
    for name, *others in groups:
        if others:
            raise ValueError(
                f"{name}.weight is shared with {', '.join(others)}; put all of them into ignore, or use prune(), "
                "which masks them together"
            )
    return {name: layer for group in groups for name, layer in group.items()}
