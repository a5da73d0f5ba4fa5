"""Pin all engines that are compared to the same processors and number of threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

#: Seconds that threads of ONNX Runtime and OpenVINO may spin after a call.
_PAUSE = 0.01


def pause_for(threads: int) -> float:
    """Seconds to wait between samples, so that one engine's spinning threads do not disturb the next engine."""
    return _PAUSE if threads > 1 else 0.0


def _threads_of_process() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _pin(threads: list[int], processors: set[int]) -> None:
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # the process has ended
            os.sched_setaffinity(thread, processors)


@contextlib.contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Limit torch to `threads` threads and the process to as many processors, if the system can pin threads.

    Raises:
        ValueError: the process may not use that many processors.
    """
    pins = hasattr(os, "sched_setaffinity")
    usable = sorted(os.sched_getaffinity(0)) if pins else list(range(os.cpu_count() or 1))
    if threads > len(usable):
        raise ValueError(f"this process may use {len(usable)} processors, got {threads} threads")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if pins:
        _pin(_threads_of_process(), set(usable[:threads]))
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        if pins:
            _pin(_threads_of_process(), set(usable))
