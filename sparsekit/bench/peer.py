"""An engine of a benchmark: its adapter, required modules and tolerance."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparsekit.bench.layers.problem import Call
from sparsekit.formats.csr import BLOCKS

P = TypeVar("P")


class Installable(Protocol):
    """An engine that needs modules to be installed."""

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""


def not_installed(modules: Sequence[str]) -> list[str]:
    """The modules that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Peer(Generic[P]):
    """An engine, its required modules, and whether it skips zeros."""

    prepare: Callable[[P], Call]
    modules: Sequence[str]
    sparse: bool
    tolerance: float = 1e-5  # of its outputs; larger for int8
    dtype: str = "float32"  # of sparsekit's stored weight
    block: str = "1x1"  # block size of the mask to measure with
    calibrates: bool = False  # needs texts for static quantization
    remedy: str = ""  # engine to use if this one's outputs are wrong

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return not_installed(self.modules)


def is_ours(engine: str) -> bool:
    """Whether an engine is sparsekit's."""
    return engine.startswith("sparsekit")


def answers_wrongly(engine: str, error: NDArray[Any], bound: NDArray[Any]) -> bool:
    """Whether an engine's outputs are wrong on this machine, which tables then note.

    Args:
        engine: name of the engine.
        error: absolute errors of some outputs.
        bound: largest allowed errors, broadcastable to `error`.

    Raises:
        RuntimeError: the engine is sparsekit's.
    """
    wrong = not np.all(error <= bound)  # also wrong if NaN
    if wrong and is_ours(engine):
        raise RuntimeError(f"{engine} is off by {error.max():.1e}, allowed are {np.max(bound):.1e}; please report this")
    return wrong


def engine_name(name: str, dtype: str, block: str) -> str:
    """Name of a sparsekit engine with weights of a type and a block size.

    >>> engine_name("sparsekit", "int8", "4x1"), engine_name("sparsekit", "float32", "1x1")
    ('sparsekit-int8-4x1', 'sparsekit')
    """
    return "-".join([name, *([] if dtype == "float32" else [dtype]), *([] if block == "1x1" else [block])])


def ours(name: str, prepare: Callable[[P, str], Call], tolerances: dict[str, float]) -> dict[str, Peer[P]]:
    """Engines of sparsekit by name: every weight type with a tolerance, unstructured and in 4x1 blocks."""

    def storing(dtype: str) -> Callable[[P], Call]:
        return lambda problem: prepare(problem, dtype)

    found = {}
    for block in BLOCKS:
        for dtype, tolerance in tolerances.items():
            peer = Peer(storing(dtype), (), sparse=True, tolerance=tolerance, dtype=dtype, block=block)
            found[engine_name(name, dtype, block)] = peer
    return found
