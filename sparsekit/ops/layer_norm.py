"""`sparsekit::add_layer_norm`: layer normalization of a sum in float32, without gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sparsekit import runtime
from sparsekit.ops.addresses import in_memory
from sparsekit.ops.library import (
    DEVICES,
    LIBRARY,
    NO_GRADIENT,
    is_plain,
    records_gradients,
    refusal,
    refuse_forward_mode,
)

LIBRARY.define("add_layer_norm(Tensor input, Tensor added, Tensor? weight, Tensor? bias, float eps) -> Tensor")

_NO_NORM_GRADIENT = NO_GRADIENT.format("add_layer_norm", "layer_norm")


def _normed(name: str, tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The tensor, or a contiguous copy."""
    if tensor.dtype is not torch.float32 or not tensor.is_cpu:
        raise TypeError(f"{name} must be float32 on the CPU, got {tensor.dtype} on {tensor.device}")
    if tensor.shape != shape or not shape:
        raise ValueError(f"{name} must have shape {list(shape)} to go with the others, got {list(tensor.shape)}")
    return in_memory(name, tensor).contiguous()


def _add_layer_norm(
    input: torch.Tensor, added: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    *leading, features = shape = input.shape
    input, added = _normed("input", input, shape), _normed("added", added, shape)
    weight = None if weight is None else _normed("weight", weight, shape[-1:])
    bias = None if bias is None else _normed("bias", bias, shape[-1:])
    result = torch.empty(shape, dtype=torch.float32, device="cpu")
    rows = input.data_ptr(), added.data_ptr(), result.data_ptr(), math.prod(leading), features
    places = [0 if one is None else one.data_ptr() for one in (weight, bias)]
    runtime.add_layer_norm_at(*rows, places[0], places[1], eps)
    return result


@torch.library.register_fake("sparsekit::add_layer_norm", lib=LIBRARY)
def _(input: Any, added: Any, weight: Any, bias: Any, eps: Any) -> Any:
    return input.new_empty(input.shape)


for _key in DEVICES:
    LIBRARY.impl("add_layer_norm", _add_layer_norm, _key)
torch.library.register_autograd("sparsekit::add_layer_norm", refusal(_NO_NORM_GRADIENT), lib=LIBRARY)


def add_layer_norm(
    input: torch.Tensor, added: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """`torch.nn.functional.layer_norm(input + added, [features], weight, bias, eps)` in one pass over memory.

    `input`, `added` and the result: float32, shape [..., features]; `weight` and `bias`: float32, shape [features].
    Raises as `attention`.
    """
    if is_plain(input) and type(added) is torch.Tensor:
        return _add_layer_norm(input, added, weight, bias, eps)
    refuse_forward_mode()
    if records_gradients(input, added, weight, bias):
        raise NotImplementedError(_NO_NORM_GRADIENT)
    result: torch.Tensor = torch.ops.sparsekit.add_layer_norm(input, added, weight, bias, eps)
    return result
