"""Convert the arrays of a CSR to their types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.formats.dtypes import BY_NAME, WEIGHT_DTYPES


def _check_array(name: str, given: NDArray[Any], ndim: int, kinds: str, described: str) -> None:
    if given.ndim != ndim or given.dtype.kind not in kinds:
        found = f"{given.ndim} dimensions of {given.dtype}"
        raise TypeError(f"{name} must be a {ndim}-dimensional array of {described}, got {found}")


def integers(name: str, array: Any, dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    """Convert to a one-dimensional integer array of `dtype`; refuse values that do not fit."""
    given = np.asarray(array)
    _check_array(name, given, 1, "iu", "integers")
    if given.size and not np.can_cast(given.dtype, dtype):
        limits, low, high = np.iinfo(dtype), int(given.min()), int(given.max())
        if low < limits.min or high > limits.max:
            raise ValueError(f"{name} must fit in {limits.dtype}, got values from {low} to {high}")
    return np.ascontiguousarray(given, dtype=dtype)


def floats(name: str, array: Any, ndim: int) -> NDArray[np.float32]:
    """Convert to float32; refuse values that do not fit."""
    given = np.asarray(array)
    _check_array(name, given, ndim, "f", "floats")
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(given, dtype=np.float32)
    if given.dtype.itemsize > narrow.dtype.itemsize:
        beyond = given[np.isinf(narrow) & np.isfinite(given)]
        if beyond.size:
            raise ValueError(f"{name} must fit in float32, got {beyond[0]}; the largest is {np.finfo(np.float32).max}")
    return narrow


def stored_values(array: Any) -> NDArray[Any]:
    """Convert to one-dimensional values of a stored weight type; other floats become float32."""
    given = np.asarray(array)
    stored = [BY_NAME[name].numpy for name in WEIGHT_DTYPES]
    return np.ascontiguousarray(given) if given.ndim == 1 and given.dtype in stored else floats("values", given, 1)


def scales_array(array: Any) -> NDArray[Any]:
    """Convert scales: float32 for rows, float16 for groups."""
    given = np.asarray(array)
    if given.ndim != 2:
        return floats("scales", given, 1)
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(floats("scales", given, 2), dtype=np.float16)
    if ((narrow != given) & ~np.isnan(given)).any():  # NaN is refused later
        raise ValueError("scales of groups must be numbers that float16 holds; round them before you quantize")
    return narrow
