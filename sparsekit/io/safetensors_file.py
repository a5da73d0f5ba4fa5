"""Read arrays of a safetensors file with numpy only."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.io.untrusted import LARGEST_JSON, parse_json

_LENGTH_BYTES = 8
#: Largest number of dimensions, as in numpy.
_MOST_DIMENSIONS = 64


def is_size(value: Any) -> bool:
    """Whether a value from a file is a valid size."""
    return type(value) is int and 0 <= value < 2**63


def is_shape(value: Any) -> bool:
    """Whether a value from a file is a valid array shape."""
    return isinstance(value, list | tuple) and len(value) <= _MOST_DIMENSIONS and all(map(is_size, value))


def entries_of(shape: Any) -> int:
    """Number of elements of an array with a shape from a file.

    Raises:
        ValueError: it is not a shape, or has too many dimensions or elements, not counting sizes of 0.
    """
    if not is_shape(shape):
        raise ValueError(f"a shape must have at most {_MOST_DIMENSIONS} sizes from 0 to 2^63 - 1, got {shape!r:.80}")
    entries = 1
    for size in shape:
        entries *= max(size, 1)  # strides of empty arrays could overflow
        if not is_size(entries):
            raise ValueError(f"a shape must have fewer than 2^63 entries, got {shape!r:.80}")
    return 0 if 0 in shape else entries


@dataclass(frozen=True)
class Place:
    """Location, type and shape of an array in a file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int


def _place(name: str, entry: Any, data: int) -> Place:
    """Parse a header entry; `data` is the offset of the data section."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {name!r:.80} must have dtype, shape and data_offsets and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BY_SAFETENSORS:
        raise ValueError(f"array {name!r:.80} must be of a type among {', '.join(BY_SAFETENSORS)}, got {dtype!r:.80}")
    if not is_shape(offsets) or len(offsets) != 2:
        raise ValueError(f"array {name!r:.80} must have two data_offsets, got {offsets!r:.80}")
    try:
        size = entries_of(shape) * BY_SAFETENSORS[dtype].nbytes
    except ValueError as error:
        raise ValueError(f"array {name!r:.80}: {error}") from error
    if offsets[1] - offsets[0] != size:
        raise ValueError(
            f"array {name!r:.80} must have {size} bytes for {dtype} {shape}, got {offsets[1] - offsets[0]}"
        )
    return Place(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _read(handle: int, begin: int, end: int) -> NDArray[np.uint8]:
    """Read bytes of an open file into newly allocated memory."""
    found = np.empty(end - begin, np.uint8)
    done = 0
    while done < found.size:  # one call reads 2 GiB at most
        count = os.preadv(handle, [found.data[done:]], begin + done)
        if not count:
            raise ValueError(f"it was cut off at byte {begin + done}")
        done += count
    return found


def _places(handle: int, nbytes: int) -> dict[str, Place]:
    """Places of all arrays, which must cover the data section without gaps or overlap."""
    if nbytes < _LENGTH_BYTES:
        raise ValueError(f"it must have at least {_LENGTH_BYTES} bytes, got {nbytes}")
    length = int.from_bytes(_read(handle, 0, _LENGTH_BYTES).tobytes(), "little")
    data = _LENGTH_BYTES + length
    if length > LARGEST_JSON or data > nbytes:
        raise ValueError(f"its header of {length} bytes must fit into {LARGEST_JSON} and the file, which has {nbytes}")
    header = parse_json(_read(handle, _LENGTH_BYTES, data).tobytes())
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    found = {name: _place(name, entry, data) for name, entry in header.items() if name != "__metadata__"}
    end = data
    for place in sorted(found.values(), key=lambda place: (place.begin, place.end)):
        if place.begin != end:
            raise ValueError(f"its arrays must follow each other, one begins at byte {place.begin} instead of {end}")
        end = place.end
    if end != nbytes:
        raise ValueError(f"its header describes {end} bytes, the file has {nbytes}")
    return found


class ArrayFile:
    """An open safetensors file; the header is checked first.

    Args:
        path: the file.

    `nbytes` is the file's size, `places` are the locations of its arrays.

    Raises:
        ValueError: the file is truncated or malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)
        self.nbytes = os.fstat(self._handle).st_size
        try:
            self.places = _places(self._handle, self.nbytes)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); copy the folder again") from error

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Read the bytes of an array, uint8, into newly allocated memory, so that they cannot change after checks.

        Raises:
            ValueError: the file was truncated since it was opened.
        """
        place = self.places[name]
        try:
            return _read(self._handle, place.begin, place.end)
        except ValueError as error:
            raise ValueError(f"{self.path} is damaged ({error}); copy the folder again") from error
