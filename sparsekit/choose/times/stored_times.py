"""Times of products in the user's cache folder: measured once on a machine, read as untrusted files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sparsekit import runtime
from sparsekit.choose.assignments.levels import SPARSITIES, Form
from sparsekit.choose.times.products import Shape
from sparsekit.io.atomic_file import write_json
from sparsekit.io.cache_folder import cache_folder
from sparsekit.io.untrusted import read_json
from sparsekit.runtime.environment import environment

#: Of the environment, what times depend on.
_FACTS = ("sparsekit", "build", "isa", "threads", "cpu", "cpu_family", "cpu_model")


@dataclass(frozen=True)
class Cell:
    """What a product's times depend on, on one machine.

    Attributes:
        shape: of the product.
        form: of its weights.
        tokens: in a call.
        copies: products of the shape after which a weight comes again: how cold caches are.
        decodes: whether layouts are a decoder's.
    """

    shape: Shape
    form: Form
    tokens: int
    copies: int
    decodes: bool


def _shape(shape: Shape) -> dict[str, Any]:
    return {"out_features": list(shape.out_features), "in_features": shape.in_features}


def _entry(cell: Cell, seconds: Iterable[float]) -> dict[str, Any]:
    numbers = {"tokens": cell.tokens, "copies": cell.copies, "decodes": cell.decodes}
    return {**asdict(cell.form), **numbers, "seconds": list(seconds)}


class StoredTimes:
    """Times of products by level, one file for each shape.

    They count for the processor, instruction set, threads and version of sparsekit with which they were measured.

    Raises:
        OSError: the cache folder cannot be made or written.
    """

    def __init__(self) -> None:
        self._folder = cache_folder("times")
        found = environment()
        self._facts = {name: found[name] for name in _FACTS if name in found}
        self._facts |= {"torch_threads": runtime.uses_torch_threads(), "sparsities": list(SPARSITIES)}

    def times_of(self, shape: Shape) -> dict[Cell, tuple[float, ...]]:
        """Seconds by level of what is stored of a shape; nothing of a damaged file."""
        with suppress(OSError, ValueError):
            return _checked(read_json(self._file(shape)), self._head(shape), shape)
        return {}

    def keep(self, cell: Cell, seconds: Iterable[float]) -> None:
        """Store seconds by level, beside what is there of the shape.

        Raises:
            OSError: the file cannot be written.
        """
        times = {**self.times_of(cell.shape), cell: tuple(seconds)}
        entries = [_entry(one, found) for one, found in times.items()]
        write_json(self._file(cell.shape), {**self._head(cell.shape), "times": entries})

    def _head(self, shape: Shape) -> dict[str, Any]:
        """What a file begins with: the environment and the shape that its times are of."""
        return {"environment": self._facts, "shape": _shape(shape)}

    def _file(self, shape: Shape) -> Path:
        name = hashlib.sha256(json.dumps(self._head(shape), sort_keys=True).encode()).hexdigest()
        return self._folder / f"{name}.json"


def _checked(stored: Any, head: Mapping[str, Any], shape: Shape) -> dict[Cell, tuple[float, ...]]:
    """The times of a file.

    Raises:
        ValueError: it is not as `keep` writes it.
    """
    if not isinstance(stored, dict) or {**stored, "times": None} != {**head, "times": None}:
        raise ValueError("the file must hold times of this environment and shape")
    entries = stored["times"]
    if not isinstance(entries, list):
        raise ValueError(f"times must be a list, got {entries!r:.80}")
    return dict(_checked_entry(entry, shape) for entry in entries)


def _checked_entry(entry: Any, shape: Shape) -> tuple[Cell, tuple[float, ...]]:
    kinds = {"dtype": str, "mask_structure": str, "tokens": int, "copies": int, "decodes": bool, "seconds": list}
    if not isinstance(entry, dict) or {name: type(value) for name, value in entry.items()} != kinds:
        raise ValueError(f"a time must be an object of {', '.join(kinds)}, got {entry!r:.80}")
    seconds = entry["seconds"]
    positive = all(type(one) is float and isfinite(one) and one > 0 for one in seconds)
    if len(seconds) != len(SPARSITIES) or not positive or min(entry["tokens"], entry["copies"]) < 1:
        raise ValueError(f"a time must have {len(SPARSITIES)} positive numbers of seconds, got {entry!r:.80}")
    form = Form(entry["dtype"], entry["mask_structure"])
    return Cell(shape, form, entry["tokens"], entry["copies"], entry["decodes"]), tuple(seconds)
