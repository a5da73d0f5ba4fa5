"""`sparsekit::attention`: dense attention in float32, without gradients."""

from __future__ import annotations

from typing import Any

import torch

from sparsekit import runtime
from sparsekit.ops.addresses import in_memory
from sparsekit.ops.library import (
    DEVICES,
    LIBRARY,
    NO_GRADIENT,
    needs_operator,
    records_gradients,
    refusal,
    refuse_forward_mode,
)

LIBRARY.define("attention(Tensor query, Tensor key, Tensor value, Tensor? mask, bool causal, float? scale) -> Tensor")

_NO_ATTENTION_GRADIENT = NO_GRADIENT.format("attention", "scaled_dot_product_attention")


def _heads(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy whose last dimension is contiguous."""
    if not tensor.is_cpu:
        raise runtime.KernelUnavailableError(
            f"attention runs on the CPU, got {name} on {tensor.device}; move it to 'cpu'"
        )
    if tensor.dtype is not torch.float32:
        raise TypeError(f"{name} must be float32, got {tensor.dtype}; convert it with .float()")
    if tensor.dim() != 4:
        raise ValueError(f"{name} must have shape [batch, heads, tokens, features], got {list(tensor.shape)}")
    tensor = in_memory(name, tensor)
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _mask(mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The mask, expanded to this shape, copied if its keys are not contiguous."""
    if mask.dtype not in (torch.bool, torch.float32) or not mask.is_cpu:
        raise TypeError(f"mask must be bool or float32 on the CPU, got {mask.dtype} on {mask.device}")
    mask = in_memory("mask", mask)
    try:
        keys = mask if mask.dim() > 0 and mask.shape[-1] == shape[3] else mask.expand(*mask.shape[:-1], shape[3])
        return (keys if keys.stride(-1) == 1 else keys.contiguous()).expand(shape)
    except RuntimeError as error:
        raise ValueError(f"mask must broadcast to {list(shape)}, got shape {list(mask.shape)}") from error


def _attention_output(batch: Any, heads: Any, queries: Any, features: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Shape and strides of the output; in memory the heads of a token are adjacent."""
    row = heads * features
    return (batch, heads, queries, features), (queries * row, features, row, 1)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    query, key, value = _heads("query", query), _heads("key", key), _heads("value", value)
    batch, heads, queries, head_dim = query.shape
    shape, strides = _attention_output(batch, heads, queries, value.shape[3])
    result = torch.empty_strided(shape, strides, dtype=torch.float32, device="cpu")
    placed_mask = runtime.NO_MASK
    if mask is not None:
        mask = _mask(mask, (batch, heads, queries, key.shape[2]))
        placed_mask = (mask.data_ptr(), mask.shape, mask.stride(), mask.dtype is torch.bool)
    runtime.attention_at(
        query.data_ptr(),
        query.shape,
        query.stride(),
        key.data_ptr(),
        key.shape,
        key.stride(),
        value.data_ptr(),
        value.shape,
        value.stride(),
        result.data_ptr(),
        shape,
        strides,
        *placed_mask,
        causal,
        head_dim**-0.5 if scale is None else scale,
    )
    return result


@torch.library.register_fake("sparsekit::attention", lib=LIBRARY)
def _(query: Any, key: Any, value: Any, mask: Any, causal: Any, scale: Any) -> Any:
    batch, heads, queries, _ = query.shape
    return query.new_empty_strided(*_attention_output(batch, heads, queries, value.shape[3]))


for _key in DEVICES:
    LIBRARY.impl("attention", _attention, _key)
torch.library.register_autograd("sparsekit::attention", refusal(_NO_ATTENTION_GRADIENT), lib=LIBRARY)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Dense attention `softmax(scale * query @ key.mT + mask) @ value`; see `sparsekit.runtime.attention`.

    As `torch.nn.functional.scaled_dot_product_attention` with `enable_gqa`, except that `causal` aligns the last query
    with the last key.

    Args:
        query: float32, shape [batch, heads, queries, head_dim].
        key: float32, shape [batch, key_heads, keys, head_dim]; `heads` is a multiple of `key_heads`.
        value: float32, shape [batch, key_heads, keys, value_dim].
        mask: bool (False hides) or float32 (added), broadcasts to [batch, heads, queries, keys].
        causal: whether query `i` sees the keys up to `i + keys - queries` only.
        scale: None for 1 / sqrt(head_dim).

    Returns:
        float32, shape [batch, heads, queries, value_dim]; its transpose(1, 2) is contiguous.

    Raises:
        TypeError: a tensor has a wrong type.
            ValueError: a shape does not fit.
        KernelUnavailableError: a tensor is not on the CPU.
        NotImplementedError: a tensor requires gradients, or forward-mode gradients are computed.
    """
    refuse_forward_mode()
    if records_gradients(query, key, value, mask):
        raise NotImplementedError(_NO_ATTENTION_GRADIENT)
    if needs_operator(query, None) or type(key) is not torch.Tensor or type(value) is not torch.Tensor:
        result: torch.Tensor = torch.ops.sparsekit.attention(query, key, value, mask, causal, scale)
        return result
    return _attention(query, key, value, mask, causal, scale)
