"""The layers to prune: linear layers in either orientation, and those that share a weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from sparsekit.introspect.dense_classes import is_conv1d
from sparsekit.introspect.selection import select_matrices, shared_weights, stored_weight


def oriented(layer: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """Transpose a tensor from the layer's orientation to [out_features, in_features], or back."""
    return tensor.T if is_conv1d(layer) else tensor


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The layer's weight as [out_features, in_features], masks applied, without gradient."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return oriented(layer, weight.detach())


def check_weight(name: str, layer: nn.Module) -> None:
    """Refuse a layer whose weight cannot be masked.

    Raises:
        ValueError: its weight is computed before each call, or has no values yet.
    """
    if parametrize.is_parametrized(layer, "weight"):
        return
    weight = layer._parameters.get("weight")
    if weight is None:
        how = (
            "torch.nn.utils.prune.remove(module, 'weight')" if "weight_orig" in layer._parameters else "the hook's undo"
        )
        raise ValueError(
            f"{name}.weight is not a parameter but computed of {', '.join(layer._parameters)} before each call, as "
            f"torch.nn.utils does it; bake it in first with {how}, then keep_zeros(model) masks the zeros there are"
        )
    if weight.is_meta or is_lazy(weight):
        raise ValueError(f"{name}.weight has no values yet (it is on the meta device, or lazy); load the model first")


def left_out(model: nn.Module) -> dict[str, str]:
    """Linear layers that are pruned only when named: they share their weight with an embedding, or have no weights.

    Returns:
        Layer name -> why.
    """
    modules = dict(model.named_modules())
    empty = [name for name, module in modules.items() if _is_matrix(module) and not _size(module)]
    found = dict.fromkeys(empty, "has no weights")
    for name, others in shared_weights(model).items():
        outside = [other for other in others if not _is_matrix(modules[other])]
        if _is_matrix(modules[name]) and outside:
            found[name] = f"shares its weight with {', '.join(outside)}"
    return found


def _size(layer: nn.Module) -> int:
    weight = stored_weight(layer)
    return 1 if weight is None or is_lazy(weight) else weight.numel()


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def _without_tied(model: nn.Module, layers: Mapping[str, nn.Module], targets: Iterable[str]) -> dict[str, nn.Module]:
    """Layers without those that share their weight with an embedding, unless a target is the name of one of them."""
    reasons = left_out(model)
    named = set(targets)
    kept = {name: layer for name, layer in layers.items() if name not in reasons or name in named}
    if not kept:
        name, reason = next((name, reasons[name]) for name in layers)
        raise ValueError(f"there is nothing to prune: {name} {reason}; give other targets")
    return kept


def group_prunable(model: nn.Module, targets: Iterable[str], ignore: Iterable[str]) -> list[dict[str, nn.Module]]:
    """Layers to prune, by name; those that share one weight are in one group.

    Layers that share their weight with an embedding are left out, unless a target is their very name.

    Raises:
        TypeError, ValueError: as `select_matrices`; also when a layer holds no weight with values of its own, or shares
            it with a module that is not selected, such as an embedding.
    """
    targets = targets if isinstance(targets, str) else list(targets)
    layers = _without_tied(model, select_matrices(model, targets, ignore), targets)
    shared = shared_weights(model)
    groups: dict[int, dict[str, nn.Module]] = {}
    for name, layer in layers.items():
        check_weight(name, layer)
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
