"""Weights in units of a scale, `value = code * scale`: int8 with one for each row, int4 with one for each group.

Codes of int8 go from -127 to 127, those of int4 from -8 to 7. A group is 128 input features of a row, as GPTQ and AWQ
cut rows; its scale is a float16.
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
#: Least and largest code, by type.
_CODES = {"int8": (-_MOST, _MOST), "int4": (-8, 7)}
_SMALLEST_FLOAT16 = 2.0**-24
#: Parts of the largest value that `by_mse` tries as the largest code.
_TRIED = np.linspace(0.4, 1.0, 25)
#: Percentile of magnitudes that `by_percentile` maps to the largest code.
_PERCENTILE = 99.5


def scales_shape(dtype: str, shape: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the scales of a weight: [out_features] for int8, [out_features, groups] for int4."""
    return shape[:1] if dtype == "int8" else (shape[0], groups_of(shape[1]))


@dataclass(frozen=True)
class _Segments:
    """The values that have a scale in common: those of a row, or of a group of it."""

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
        """Numbers of the values reduced segment by segment; 0 for empty ones."""
        result = np.zeros(self.lengths.size)
        filled = self.lengths > 0
        if filled.any():
            result[filled] = function.reduceat(numbers, self.starts[filled])
        return result

    def each(self, scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scale of every value."""
        return np.repeat(scales, self.lengths)

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in units of their scales, as codes."""
        return np.clip(np.rint(values), *_CODES[self.dtype])

    def finished(self, scales: NDArray[np.float64]) -> Scales:
        """Scales as they are stored; segments without anything but zeros get the scale 1.

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
    """Scales with which the largest magnitude of a segment is the largest code."""
    return segments.reduce(np.maximum, np.abs(segments.values)) / _CODES[segments.dtype][1]


def by_absmax(weight: CSR, dtype: str = "int8") -> Scales:
    """The largest magnitude of a row or group becomes the largest code: nothing is clipped."""
    segments = _Segments.of(weight, dtype)
    return segments.finished(_largest(segments))


def by_percentile(weight: CSR, dtype: str = "int8") -> Scales:
    """The 99.5th percentile of a row's or group's magnitudes becomes the largest code: few outliers are clipped."""
    segments = _Segments.of(weight, dtype)
    parts = np.split(np.abs(segments.values), segments.starts[1:])
    found = [np.percentile(part, _PERCENTILE) if part.size else 0.0 for part in parts[: segments.lengths.size]]
    return segments.finished(np.asarray(found, np.float64) / _CODES[dtype][1])


def by_mse(weight: CSR, dtype: str = "int8") -> Scales:
    """Of several scales below that of `by_absmax`, the one with the least squared error of the row or group."""
    segments = _Segments.of(weight, dtype)
    largest = np.where(_largest(segments) > 0, _largest(segments), 1.0)
    best, least = largest, np.full(largest.size, np.inf)
    for part in _TRIED:
        each = segments.each(largest * part)
        error = segments.rounded(segments.values / each) * each - segments.values
        summed = segments.reduce(np.add, (error**2).astype(np.float32))
        best, least = np.where(summed < least, largest * part, best), np.minimum(summed, least)
    return segments.finished(best)


#: Ways to choose scales, by name.
SCALE_METHODS: dict[str, Callable[[CSR, str], Scales]] = {
    "absmax": by_absmax,
    "percentile": by_percentile,
    "mse": by_mse,
}


def pack_nibbles(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Codes of int4 two in a byte, the first one in the lower half, as two's complement.

    Args:
        codes: int8, shape [count], from -8 to 7.

    Returns:
        uint8, shape [(count + 1) // 2]; an odd count leaves the last half 0.

    >>> pack_nibbles(np.array([1, -1, 7], np.int8)).tolist()
    [241, 7]
    """
    halves = np.zeros(codes.size + codes.size % 2, np.uint8)
    halves[: codes.size] = codes.view(np.uint8) & 15
    return (halves[::2] | halves[1::2] << 4).astype(np.uint8, copy=False)


def unpack_nibbles(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Back from `pack_nibbles`.

    Raises:
        ValueError: a last half that holds no code is not 0.
    """
    halves = np.empty(2 * packed.size, np.uint8)
    halves[::2], halves[1::2] = packed & 15, packed >> 4
    if halves[count:].any():
        raise ValueError("values of int4 must end with halves of 0 where they hold no code")
    codes: NDArray[np.int8] = (halves[:count] << 4).view(np.int8) >> 4
    return codes


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
