"""Threads of operators: torch's if torch is loaded, else the library's own pool."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsekit import _C

_TORCH_LIBRARY = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"


@functools.cache
def _torch_threads(library: str) -> bool:
    """Pass torch's `torch_parallel_for` (torch 2.10 and newer) to the core; return whether it exists."""
    try:
        torch_cpu = ctypes.CDLL(library)
        symbols = torch_cpu.torch_parallel_for, torch_cpu.torch_get_num_threads
    except (OSError, AttributeError):
        return False
    addresses = [ctypes.cast(symbol, ctypes.c_void_p).value or 0 for symbol in symbols]
    _C.use_parallel(*addresses)
    return True


def follow_torch_threads() -> None:
    """Use torch's threads if torch is loaded, so that two pools never compete for processors."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.__file__ is not None:
        _torch_threads(str(Path(torch.__file__).parent / "lib" / _TORCH_LIBRARY))


def num_threads() -> int:
    """Number of threads: torch's if torch is loaded, else the pool's.

    The pool's default is `SPARSEKIT_NUM_THREADS`, at most 64 or the number of processors, or else the processors that
    the affinity mask and the container's CPU quota allow.
    """
    follow_torch_threads()
    return _C.num_threads()


def uses_torch_threads() -> bool:
    """Whether calls run on torch's threads."""
    follow_torch_threads()
    return _C.uses_outside_threads()


def set_num_threads(count: int) -> None:
    """Set the number of threads of the pool, which is used without torch.

    Raises:
        ValueError: `count` is below 1, or above both 64 and the number of processors.
        RuntimeError: torch is loaded, so its threads are used.
    """
    if uses_torch_threads():
        raise RuntimeError(f"torch is loaded and its threads are used; call torch.set_num_threads({count})")
    _C.set_pool_threads(count)


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Run calls on this many threads, torch's or those of the pool, then on as many as before; None changes nothing.

    Raises:
        ValueError: as `set_num_threads`.
    """
    before = num_threads()
    if count is None or count == before:
        yield
        return
    change = sys.modules["torch"].set_num_threads if uses_torch_threads() else set_num_threads
    change(count)
    try:
        yield
    finally:
        change(before)
