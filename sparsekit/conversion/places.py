"""Find the places of modules in a model, to replace them."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

#: Module -> its parents, with the names under which they hold it.
Places: TypeAlias = dict[nn.Module, list[tuple[nn.Module, str]]]


def places_in(model: nn.Module) -> Places:
    """The places of all modules of a model."""
    found: Places = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                found.setdefault(child, []).append((parent, name))
    return found


def keep_bias(old: nn.Module, new: nn.Module) -> None:
    """Move the old layer's bias to the new one, as the same parameter: it may be shared or in an optimizer."""
    if isinstance(old.bias, nn.Parameter):
        new.bias = old.bias


def put_in_place(places: Places, old: nn.Module, new: nn.Module) -> None:
    """Replace `old` by `new` in all places, keeping the bias of `old`."""
    keep_bias(old, new)
    for parent, name in places.pop(old):
        parent._modules[name] = new
