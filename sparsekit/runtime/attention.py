"""Dense attention on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_float32, placed, rows_contiguous
from sparsekit.runtime.threads import follow_torch_threads

#: The native operator on raw addresses; see csrc/operators/attention.h.
attention_at = _C.attention

#: A mask for `attention_at`: address, shape, strides, whether it is bool.
PlacedMask: TypeAlias = tuple[int, Sequence[int], Sequence[int], bool]
NO_MASK: PlacedMask = (0, (0, 0, 0, 0), (0, 0, 0, 0), False)


def _heads(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array, or a copy whose last dimension is contiguous."""
    check_float32(name, array)
    if array.ndim != 4:
        raise ValueError(f"{name} must have 4 dimensions [batch, heads, tokens, features], got shape {array.shape}")
    return rows_contiguous(array)


def _mask(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The mask, expanded to this shape, copied if its keys are not contiguous."""
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

    Fully masked queries get 0. Infinities and NaN in a masked key or value may reach the output, as 0 * inf is NaN.

    Args:
        query: float32, shape [batch, heads, queries, head_dim].
        key: float32, shape [batch, key_heads, keys, head_dim]; `heads` is a multiple of `key_heads`, and adjacent query
            heads share a key head.
        value: float32, shape [batch, key_heads, keys, value_dim].
        mask: broadcastable to [batch, heads, queries, keys]; float32 is added to the scores, False in a bool mask hides
            a key.
        causal: whether query `i` only sees keys up to `i + keys - queries`; the last query sees all.
        scale: None for 1 / sqrt(head_dim).

    Returns:
        float32, shape [batch, heads, queries, value_dim]; in memory the heads of a token are adjacent.

    Raises:
        TypeError: an array has a wrong type.
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
