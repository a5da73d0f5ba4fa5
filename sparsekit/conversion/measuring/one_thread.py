"""Compare functions on a busy machine, on one thread and in processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from sparsekit.timing.comparing import Clock, Timing, compare


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare_on_one_thread(
    functions: Mapping[str, Callable[[], Any]], *, seconds: float, at_most: float, least_rounds: int = 5
) -> dict[str, Timing]:
    """As `compare`, but on one torch thread and in processor time, which `seconds` and `at_most` count too.

    On a busy machine, threads spin for a time slice while they wait for each other in a call, and no clock tells that
    from work. A single thread does not wait: its processor time is what an idle machine would have taken.
    """
    with _one_thread():
        clock = Clock(wall=time.process_time)
        return compare(functions, seconds=seconds, at_most=at_most, least_rounds=least_rounds, clock=clock)
