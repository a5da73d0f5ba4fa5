"""Where modules stand in a model, to put others in their place."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

#: For every module of a model, which modules have it as a child, under which names.
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
    """Give a new layer the bias of the one before, the parameter itself: it may have other names and an optimizer."""
    if isinstance(old.bias, nn.Parameter):
        new.bias = old.bias


def put_in_place(places: Places, old: nn.Module, new: nn.Module) -> None:
    """Put `new`, with the bias of `old`, in every place of `old`."""
    keep_bias(old, new)
    for parent, name in places.pop(old):
        parent._modules[name] = new
