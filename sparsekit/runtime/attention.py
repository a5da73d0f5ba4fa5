"""Dense attention on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_float32, placed, rows_contiguous
from sparsekit.runtime.threads import follow_torch_threads

#: The kernel over raw addresses; see the native core's attention.h.
attention_at = _C.attention

#: A mask for `attention_at`: address, shape, strides, whether it is of bytes.
PlacedMask: TypeAlias = tuple[int, Sequence[int], Sequence[int], bool]
NO_MASK: PlacedMask = (0, (0, 0, 0, 0), (0, 0, 0, 0), False)


def _heads(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array, or a copy whose last dimension is contiguous."""
    check_float32(name, array)
    if array.ndim != 4:
        raise ValueError(f"{name} must have 4 dimensions [batch, heads, tokens, features], got shape {array.shape}")
    return rows_contiguous(array)


def _mask(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The mask as a view of this shape, copied where its keys are not contiguous."""
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.float32, np.bool_):
        found = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask must be a bool or float32 array, got {found}")
    try:
        np.broadcast_to(mask, shape)
    except ValueError as error:
        raise ValueError(f"mask must broadcast to {list(shape)}, got shape {list(mask.shape)}") from error
    keys = np.broadcast_to(mask, (*mask.shape[:-1], shape[-1]))
    return np.broadcast_to(rows_contiguous(keys), shape)


def attention(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    mask: NDArray[np.float32] | NDArray[np.bool_] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> NDArray[np.float32]:
    """Dense attention `softmax(scale * query @ key.T + mask) @ value`, head by head.

    A query that sees no key gets 0. An infinity or NaN in a key or value may reach queries that it is masked from: its
    weight is 0, and 0 * inf is NaN.

    Args:
        query: float32, shape [batch, heads, queries, head_dim].
        key: float32, shape [batch, key_heads, keys, head_dim]; `heads` is a multiple of `key_heads`, and heads of
            queries next to each other share one.
        value: float32, shape [batch, key_heads, keys, value_dim].
        mask: broadcasts to [batch, heads, queries, keys]; float32 is added to the scores, bool hides where it is False.
        causal: whether query `i` sees the keys up to `i + keys - queries` only; the last query sees all.
        scale: None for 1 / sqrt(head_dim).

    Returns:
        float32, shape [batch, heads, queries, value_dim]; in memory the heads of a token lie next to each other.

    Raises:
        TypeError: an array has another type.
        ValueError: a shape does not fit.

    >>> one = np.ones((1, 1, 1, 4), np.float32)
    >>> attention(one, np.zeros((1, 1, 3, 4), np.float32), np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1))
    array([[[[1.]]]], dtype=float32)
    """
    query, key, value = _heads("query", query), _heads("key", key), _heads("value", value)
    batch, heads, queries, head_dim = query.shape
    result = np.empty((batch, queries, heads, value.shape[3]), np.float32).swapaxes(1, 2)
    mask_address, mask_shape, mask_strides, of_bytes = NO_MASK
    if mask is not None:
        mask = _mask(mask, (batch, heads, queries, key.shape[2]))
        (mask_address, mask_shape, mask_strides), of_bytes = placed(mask), mask.dtype == np.bool_
    follow_torch_threads()
    attention_at(
        *placed(query),
        *placed(key),
        *placed(value),
        *placed(result),
        mask_address,
        mask_shape,
        mask_strides,
        of_bytes,
        causal,
        head_dim**-0.5 if scale is None else scale,
    )
    return result
