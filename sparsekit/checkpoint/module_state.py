"""State of modules that state dicts leave out: non-persistent buffers, and numbers and tensors in plain attributes.

A freshly made model computes it from its configuration. Where a model has it otherwise (a decoder layer that kept the
`lambda_init` of its old number, a buffer that was cast), a folder holds it as arrays under its own name: numbers with
the shape [], None as an array of no elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sparsekit.nn import SparseLinear

#: Types of numbers -> types of tensors that hold them.
_DTYPES: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
#: Largest whole number: tables and positions are counted by them, and untrusted ones would take memory.
_LARGEST = 2**20
#: Modes that a model is switched to, not what it is.
_MODES = ("training", "gradient_checkpointing")


def computed_buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Non-persistent buffers, the packed weights of sparse layers apart: name, module, name in it."""
    for prefix, module in model.named_modules():
        for key in module._buffers if not isinstance(module, SparseLinear) else ():
            if key in module._non_persistent_buffers_set:
                yield (f"{prefix}.{key}" if prefix else key), module, key


def _plain_attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for prefix, module in model.named_modules():
        for key, value in vars(module).items() if not isinstance(module, SparseLinear) else ():
            is_state = value is None or type(value) in _DTYPES or isinstance(value, torch.Tensor)
            if is_state and not key.startswith("_") and key not in _MODES:
                yield (f"{prefix}.{key}" if prefix else key), value


def left_out(model: nn.Module) -> dict[str, Any]:
    """Tensors, numbers and None by name, as `differing` compares them."""
    buffers = {name: module._buffers[key] for name, module, key in computed_buffers(model)}
    return dict(_plain_attributes(model)) | buffers


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if not isinstance(one, torch.Tensor):
        return bool(one == other) or (type(one) is float and math.isnan(one) and math.isnan(other))
    if one.is_meta or other.is_meta or one.dtype != other.dtype or one.shape != other.shape:
        return False
    same = one == other
    return bool((same | (one.isnan() & other.isnan()) if one.is_floating_point() else same).all())


def _as_tensor(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if value is None:
        return torch.empty(0)
    if type(value) is int and abs(value) > _LARGEST:
        raise ValueError(f"{name} is {value} in this model and something else in one made from its configuration, "
                         "which a folder cannot hold; bring the two in line")  # fmt: skip
    return torch.tensor(value, dtype=_DTYPES[type(value)])


def differing(model: nn.Module, fresh: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model that state dicts leave out and that a freshly made one has otherwise, as tensors.

    What only one of them has is what code outside of the model's class, or a call, left there.

    Raises:
        ValueError: it is nothing that a tensor can hold.
    """
    made = left_out(fresh)
    buffers = {name for name, _, _ in computed_buffers(model)}
    found = {}
    for name, value in left_out(model).items():
        is_cache = isinstance(value, torch.Tensor) and made.get(name) is None and name not in buffers
        if name in made and not is_cache and not _is_same(value, made[name]):
            found[name] = _as_tensor(name, value)
    return found


def can_hold(model: nn.Module, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
    """Whether a tensor out of a folder can be state of this name: any for a tensor, one number of its kind for one."""
    parent, _, key = name.rpartition(".")
    try:
        module = model.get_submodule(parent)
    except AttributeError:
        return False
    if isinstance(module, SparseLinear) or key.startswith("_") or key in _MODES:
        return False
    if key in module._buffers:
        return key in module._non_persistent_buffers_set
    value = vars(module).get(key, "absent")
    if isinstance(value, torch.Tensor):
        return True
    is_number = shape == () and dtype in _DTYPES.values()
    return (value is None or type(value) in _DTYPES) and (is_number or shape == (0,))


def restore(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Give a model state that `can_hold` accepted.

    Raises:
        ValueError: it is a number too large to be one of a model's.
    """
    if tensor.dtype == torch.int64 and not tensor.dim() and abs(tensor.item()) > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST}, got {tensor.item()}")
    parent, _, key = name.rpartition(".")
    module = model.get_submodule(parent)
    is_tensor = key in module._buffers or isinstance(vars(module)[key], torch.Tensor)
    setattr(module, key, tensor if is_tensor else tensor.item() if tensor.numel() else None)
