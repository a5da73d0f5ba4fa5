"""An engine of a benchmark: how to prepare a call, what it needs, how exact it is."""

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
    """An engine that may be installed."""

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""


def not_installed(modules: Sequence[str]) -> list[str]:
    """Those of some modules that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Peer(Generic[P]):
    """An engine, what must be installed for it, and whether it skips zeros."""

    prepare: Callable[[P], Call]
    modules: Sequence[str]
    sparse: bool
    tolerance: float = 1e-5  # of its answers; engines with fewer bits are further off
    dtype: str = "float32"  # of our stored weight
    block: str = "1x1"  # of the mask that it is measured with
    calibrates: bool = False  # on texts, before it is measured
    remedy: str = ""  # the engine to take instead where this one answers wrongly

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return not_installed(self.modules)


def is_ours(engine: str) -> bool:
    """Whether an engine is of this package."""
    return engine.startswith("sparsekit")


def answers_wrongly(engine: str, error: NDArray[Any], bound: NDArray[Any]) -> bool:
    """Whether an engine computes something else on this machine; the tables then say so.

    Args:
        engine: its name.
        error: absolute errors of some answers.
        bound: the largest ones allowed, of a shape that broadcasts to that of `error`.

    Raises:
        RuntimeError: it is one of ours, which must not be measured then.
    """
    wrong = not np.all(error <= bound)  # NaN is wrong, too
    if wrong and is_ours(engine):
        raise RuntimeError(f"{engine} is off by {error.max():.1e}, allowed are {np.max(bound):.1e}; please report this")
    return wrong


def engine_name(name: str, dtype: str, block: str) -> str:
    """What one of our engines is called with weights of a type and a mask of blocks.

    >>> engine_name("sparsekit", "int8", "4x1"), engine_name("sparsekit", "float32", "1x1")
    ('sparsekit-int8-4x1', 'sparsekit')
    """
    return "-".join([name, *([] if dtype == "float32" else [dtype]), *([] if block == "1x1" else [block])])


def ours(name: str, prepare: Callable[[P, str], Call], tolerances: dict[str, float]) -> dict[str, Peer[P]]:
    """Our own engines by name: every type of weight of which a tolerance is given, without blocks and in them."""

    def storing(dtype: str) -> Callable[[P], Call]:
        return lambda problem: prepare(problem, dtype)

    found = {}
    for block in BLOCKS:
        for dtype, tolerance in tolerances.items():
            peer = Peer(storing(dtype), (), sparse=True, tolerance=tolerance, dtype=dtype, block=block)
            found[engine_name(name, dtype, block)] = peer
    return found
