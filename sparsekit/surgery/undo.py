"""Restore a model when a change to it fails halfway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

#: Dictionaries of a module that are modified in place.
_HELD = ("_parameters", "_buffers", "_modules")


def configs_of(model: nn.Module) -> list[Any]:
    """Every transformers config in a model, including nested ones."""
    found: dict[int, Any] = {}
    waiting = [getattr(module, "config", None) for module in model.modules()]
    while waiting:
        config = waiting.pop()
        if hasattr(config, "to_dict") and id(config) not in found:
            found[id(config)] = config
            waiting.extend(vars(config).values())
    return list(found.values())


def _of_module(module: nn.Module) -> Callable[[], None]:
    kind, entries = type(module), dict(vars(module))
    held = {key: dict(entries[key]) for key in _HELD}

    def restore() -> None:
        module.__class__ = kind  # a parametrization changes a module's class
        vars(module).clear()
        vars(module).update(entries)
        for key, values in held.items():
            vars(module)[key].clear()
            vars(module)[key].update(values)

    return restore


def _of_config(config: Any) -> Callable[[], None]:
    entries = dict(vars(config))

    def restore() -> None:
        vars(config).clear()
        vars(config).update(entries)

    return restore


def _of_parameter(parameter: nn.Parameter) -> Callable[[], None]:
    values = parameter.detach()  # shares memory: it costs nothing until the parameter gets new storage

    def restore() -> None:
        parameter.data = values

    return restore


def _of_mask(mask: torch.Tensor) -> Callable[[], None]:
    values = mask.clone()

    def restore() -> None:
        mask.copy_(values)

    return restore


@contextmanager
def undo_on_failure(model: nn.Module) -> Iterator[None]:
    """Restore a model's modules, attributes, parameters, masks and configs if the body raises.

    Replaced objects, new storage of parameters and writes into bool buffers are undone; in-place writes into a
    parameter's values are not. The old weights stay in memory until the body ends.

    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> try:
    ...     with undo_on_failure(model):
    ...         model[0] = nn.Identity()
    ...         raise ValueError
    ... except ValueError:
    ...     model[0]
    Linear(in_features=4, out_features=2, bias=True)
    """
    back = [_of_mask(buffer) for buffer in model.buffers() if buffer.dtype == torch.bool and not buffer.is_meta]
    back += [_of_parameter(parameter) for parameter in model.parameters() if not is_lazy(parameter)]
    back += [_of_module(module) for module in model.modules()]
    back += [_of_config(config) for config in configs_of(model)]
    try:
        yield
    except BaseException:
        for restore in back:
            restore()
        raise
