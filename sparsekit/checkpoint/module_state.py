"""Module state that state dicts omit: non-persistent buffers, and numbers and tensors in plain attributes.

A freshly built model computes it from its configuration. If a model's state differs (a decoder layer that kept the
`lambda_init` of its old index, a buffer that was cast), the folder stores it as arrays under its own name: numbers with
shape [], None as an empty array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sparsekit.nn import SparseLinear

#: Python type -> dtype of the tensor that stores it.
_DTYPES: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
#: Largest integer: code may allocate tables or positions of this size, and files are untrusted.
_LARGEST = 2**20
#: Attributes for the current mode, which are not part of the model.
_MODES = ("training", "gradient_checkpointing")


def computed_buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Non-persistent buffers, except packed weights of sparse layers: full name, module, name in the module."""
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
    """Tensors, numbers and None by name, for `differing` to compare."""
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
    """State that state dicts omit and that differs from a freshly built model, as tensors.

    State that only one of the models has is skipped: it was set by a call or by code outside of the model's class.

    Raises:
        ValueError: a tensor cannot hold the state.
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
    """Whether a stored tensor can be state of this name: tensors take any, numbers and None a number or None."""
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
    """Set state that `can_hold` accepted.

    Raises:
        ValueError: an integer is implausibly large.
    """
    if tensor.dtype == torch.int64 and not tensor.dim() and abs(tensor.item()) > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST}, got {tensor.item()}")
    parent, _, key = name.rpartition(".")
    module = model.get_submodule(parent)
    is_tensor = key in module._buffers or isinstance(vars(module)[key], torch.Tensor)
    setattr(module, key, tensor if is_tensor else tensor.item() if tensor.numel() else None)
