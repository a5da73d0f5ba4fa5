"""Scales for int8 weights: one a row, `value = code * scale` with codes from -127 to 127."""

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
