"""Symmetric quantization, `value = code * scale`: int8 with a scale for each row, int4 with one for each group.

int8 codes are -127 to 127, int4 codes -8 to 7. A group is 128 input features of a row, as in GPTQ and AWQ; its scale is
a float16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit.int4_groups import GROUP, groups_of

if TYPE_CHECKING:
    from sparsekit.formats.csr import CSR

Scales: TypeAlias = NDArray[np.float32]

_MOST = 127
#: Smallest and largest code, by type.
_CODES = {"int8": (-_MOST, _MOST), "int4": (-8, 7)}
_SMALLEST_FLOAT16 = 2.0**-24
#: Fractions of the largest magnitude that `by_mse` tries as clipping thresholds.
_TRIED = np.linspace(0.4, 1.0, 25)
#: Percentile of magnitudes that `by_percentile` clips at.
_PERCENTILE = 99.5


def scales_shape(dtype: str, shape: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the scales of a weight: [out_features] for int8, [out_features, groups] for int4."""
    return shape[:1] if dtype == "int8" else (shape[0], groups_of(shape[1]))


@dataclass(frozen=True)
class _Segments:
    """Values segmented by scale: by row or by group."""

    dtype: str
    shape: tuple[int, ...]  # of the scales
    values: NDArray[np.float32]  # of all segments, one after the other
    starts: NDArray[np.int64]  # of each segment
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, weight: CSR, dtype: str) -> _Segments:
        shape, lengths = scales_shape(dtype, weight.shape), np.diff(weight.crow_indices)
        if dtype == "int4":
            rows = np.repeat(np.arange(weight.out_features) * groups_of(weight.in_features), lengths)
            lengths = np.bincount(rows + weight.col_indices // GROUP, minlength=math.prod(shape))
        return cls(dtype, shape, weight.float_values(), np.cumsum(lengths) - lengths, lengths)

    def reduce(self, function: np.ufunc, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
        """Reduce an array over each segment; 0 for empty segments."""
        result = np.zeros(self.lengths.size)
        filled = self.lengths > 0
        if filled.any():
            result[filled] = function.reduceat(numbers, self.starts[filled])
        return result

    def each(self, scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale of every value."""
        return np.repeat(scales, self.lengths)

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantize the values to codes."""
        return np.clip(np.rint(values), *_CODES[self.dtype])

    def finished(self, scales: NDArray[np.float64]) -> Scales:
        """Scales in their stored type; all-zero segments get the scale 1.

        Raises:
            ValueError: one is beyond float16.
        """
        positive = np.where(scales > 0, scales, 1.0).reshape(self.shape)
        if self.dtype == "int8":
            return positive.astype(np.float32)
        if positive.max(initial=0.0) > np.finfo(np.float16).max:
            raise ValueError(f"int4 scales go up to 65,504, got {positive.max():.6g}; use another dtype")
        return np.maximum(positive, _SMALLEST_FLOAT16).astype(np.float16).astype(np.float32)


def _largest(segments: _Segments) -> NDArray[np.float64]:
    """Scales that map the largest magnitude of a segment to the largest code."""
    return segments.reduce(np.maximum, np.abs(segments.values)) / _CODES[segments.dtype][1]


def by_absmax(weight: CSR, dtype: str = "int8") -> Scales:
    """Map the largest magnitude of a row or group to the largest code: no clipping."""
    segments = _Segments.of(weight, dtype)
    return segments.finished(_largest(segments))


def by_percentile(weight: CSR, dtype: str = "int8") -> Scales:
    """Map the 99.5th percentile of a row's or group's magnitudes to the largest code: clips outliers."""
    segments = _Segments.of(weight, dtype)
    parts = np.split(np.abs(segments.values), segments.starts[1:])
    found = [np.percentile(part, _PERCENTILE) if part.size else 0.0 for part in parts[: segments.lengths.size]]
    return segments.finished(np.asarray(found, np.float64) / _CODES[dtype][1])


def by_mse(weight: CSR, dtype: str = "int8") -> Scales:
    """Search clipping thresholds for the smallest squared error of the row or group."""
    segments = _Segments.of(weight, dtype)
    largest = np.where(_largest(segments) > 0, _largest(segments), 1.0)
    best, least = largest, np.full(largest.size, np.inf)
    for part in _TRIED:
        each = segments.each(largest * part)
        error = segments.rounded(segments.values / each) * each - segments.values
        summed = segments.reduce(np.add, (error**2).astype(np.float32))
        best, least = np.where(summed < least, largest * part, best), np.minimum(summed, least)
    return segments.finished(best)


#: Methods to choose scales, by name.
SCALE_METHODS: dict[str, Callable[[CSR, str], Scales]] = {
    "absmax": by_absmax,
    "percentile": by_percentile,
    "mse": by_mse,
}


def pack_nibbles(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack int4 codes two per byte, the first in the low nibble, in two's complement.

    Args:
        codes: int8, shape [count], from -8 to 7.

    Returns:
        uint8, shape [(count + 1) // 2]; for an odd count the last nibble is 0.

    >>> pack_nibbles(np.array([1, -1, 7], np.int8)).tolist()
    [241, 7]
    """
    halves = np.zeros(codes.size + codes.size % 2, np.uint8)
    halves[: codes.size] = codes.view(np.uint8) & 15
    return (halves[::2] | halves[1::2] << 4).astype(np.uint8, copy=False)


def unpack_nibbles(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Inverse of `pack_nibbles`.

    Raises:
        ValueError: the unused last nibble is not 0.
    """
    halves = np.empty(2 * packed.size, np.uint8)
    halves[::2], halves[1::2] = packed & 15, packed >> 4
    if halves[count:].any():
        raise ValueError("values of int4 must end with halves of 0 where they hold no code")
    codes: NDArray[np.int8] = (halves[:count] << 4).view(np.int8) >> 4
    return codes


def quantize_rows(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], Scales]:
    """Quantize a dense table to int8 with a scale for each row: the row's largest magnitude becomes 127.

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
    """Dequantize a table: float32, shape [rows, columns]."""
    return codes * scales[:, None]


def check_quantized_rows(codes: NDArray[np.int8], scales: Scales) -> None:
    """Check a quantized table from a file.

    Raises:
        ValueError: a code is -128, or a scale is not positive or overflows when multiplied by 127.
    """
    with np.errstate(over="ignore"):
        good = (scales > 0) & np.isfinite(scales * np.float32(_MOST))
    if not good.all():
        found = scales[~good][0]
        raise ValueError(f"scales must be positive and finite, as 127 times them, got {found}")
    if codes.min(initial=0) < -_MOST:
        raise ValueError("codes must be from -127 to 127, got -128")
