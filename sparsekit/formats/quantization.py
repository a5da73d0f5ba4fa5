"""int8 weights with a scale for each row: `value = code * scale` with codes from -127 to 127."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sparsekit.formats.csr import CSR

Scales: TypeAlias = NDArray[np.float32]

_MOST = 127
#: Parts of the largest value that `by_mse` tries as the largest code.
_TRIED = np.linspace(0.4, 1.0, 25)
#: Percentile of a row's magnitudes that `by_percentile` maps to the largest code.
_PERCENTILE = 99.5


def _by_row(reduce: np.ufunc, weight: CSR, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Numbers of the nonzeros reduced row by row; 0 for empty rows."""
    starts, ends = weight.crow_indices[:-1], weight.crow_indices[1:]
    result = np.zeros(weight.out_features)
    filled = ends > starts
    if filled.any():
        result[filled] = reduce.reduceat(numbers, starts[filled])
    return result


def _positive(scales: NDArray[np.float64]) -> Scales:
    """Rows without anything but zeros get the scale 1."""
    return np.where(scales > 0, scales, 1.0).astype(np.float32)


def by_absmax(weight: CSR) -> Scales:
    """The largest magnitude of a row becomes the largest code: nothing is clipped."""
    return _positive(_by_row(np.maximum, weight, np.abs(weight.float_values())) / _MOST)


def by_percentile(weight: CSR) -> Scales:
    """The 99.5th percentile of a row's magnitudes becomes the largest code: few outliers are clipped."""
    magnitudes = np.abs(weight.float_values())
    rows = zip(weight.crow_indices[:-1], weight.crow_indices[1:], strict=True)
    found = [np.percentile(magnitudes[a:b], _PERCENTILE) if b > a else 0.0 for a, b in rows]
    return _positive(np.asarray(found, np.float64) / _MOST)


def by_mse(weight: CSR) -> Scales:
    """Of several scales below that of `by_absmax`, the one with the least squared error of the row."""
    values = weight.float_values()
    largest = by_absmax(weight).astype(np.float64)
    row_of = np.repeat(np.arange(weight.out_features), np.diff(weight.crow_indices))
    best, least = largest, np.full(weight.out_features, np.inf)
    for part in _TRIED:
        scales = largest * part
        each = scales[row_of]
        codes = np.clip(np.rint(values / each), -_MOST, _MOST)
        error = _by_row(np.add, weight, ((codes * each - values) ** 2).astype(np.float32))
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return _positive(best)


#: Ways to choose scales, by name.
SCALE_METHODS: dict[str, Callable[[CSR], Scales]] = {
    "absmax": by_absmax,
    "percentile": by_percentile,
    "mse": by_mse,
}


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], Scales]:
    """A dense table in int8 with a scale for each row: the row's largest magnitude becomes 127.

    Args:
        values: float32, shape [rows, columns].

    Returns:
        Codes, int8, shape [rows, columns], and scales, float32, shape [rows].

    Raises:
        ValueError: a value is not finite.

    >>> codes, scales = quantize_rows(np.array([[1.0, -0.5], [0.0, 0.0]], np.float32))
    >>> codes.tolist(), scales[1]
    ([[127, -64], [0, 0]], np.float32(1.0))
    """
    largest = np.abs(values).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        raise ValueError("must be finite to be stored in int8; keep float32")
    scales = (largest / np.float32(_MOST)).astype("<f4")
    scales[scales == 0] = 1
    codes = np.clip(np.rint(values / scales[:, None]), -_MOST, _MOST).astype(np.int8)
    return codes, scales


def dequantize_rows(codes: NDArray[np.int8], scales: Scales) -> NDArray[np.float32]:
    """The table that codes and scales stand for, float32, shape [rows, columns]."""
    return codes * scales[:, None]


def check_quantized_rows(codes: NDArray[np.int8], scales: Scales) -> None:
    """Check a table out of a file.

    Raises:
        ValueError: a code is -128, or a scale is not positive, or 127 times it not finite.
    """
    with np.errstate(over="ignore"):
        good = (scales > 0) & np.isfinite(scales * np.float32(_MOST))
    if not good.all():
        found = scales[~good][0]
        raise ValueError(f"scales must be positive and finite, as 127 times them, got {found}")
    if codes.min(initial=0) < -_MOST:
        raise ValueError("codes must be from -127 to 127, got -128")
