"""Check numpy arguments of operators, and get their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_float32(name: str, array: NDArray[np.float32]) -> None:
    """Raise TypeError for anything but a float32 array."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be a float32 array, got {found}; convert it with np.asarray({name}, np.float32)")


def check_row(name: str, array: NDArray[Any], dtype: type[np.signedinteger]) -> None:
    """Raise TypeError unless the array is contiguous, one-dimensional and of this integer type."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be a contiguous array of {np.dtype(dtype)} with one dimension, got {found}")


def rows_contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy whose last dimension is contiguous and whose strides are multiples of the item size."""
    whole = all(stride % array.itemsize == 0 for stride in array.strides)
    return array if whole and array.strides[-1] == array.itemsize else np.ascontiguousarray(array)


def placed(array: NDArray[Any]) -> tuple[int, Sequence[int], Sequence[int]]:
    """Address, shape, and strides in elements."""
    return array.ctypes.data, array.shape, tuple(stride // array.itemsize for stride in array.strides)


def feature_row(name: str, row: NDArray[np.float32] | None, features: int) -> tuple[NDArray[np.float32] | None, int]:
    """A contiguous float32 vector and its address; the caller must keep it alive."""
    if row is None:
        return None, 0
    check_float32(name, row)
    if row.shape != (features,):
        raise ValueError(f"{name} must have shape [{features}], got {list(row.shape)}")
    row = np.ascontiguousarray(row)
    return row, row.ctypes.data


def check_tokens(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
    """Raise TypeError or ValueError unless ids [tokens] and offsets [sequences + 1] describe sequences."""
    check_row("ids", ids, np.int32)
    check_row("offsets", offsets, np.int64)
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != ids.size or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must rise from 0 to the number of tokens, {ids.size}, got {offsets}")
