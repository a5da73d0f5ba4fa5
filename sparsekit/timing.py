"""Time several functions against each other: interleaved, in shuffled order, so that drift of the machine cancels."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Calls in one sample are repeated until they last this long, in seconds.
_SAMPLE_SECONDS = 0.001
#: A quartile spread above this fraction of the median means that the machine was too noisy to tell small differences.
NOISY_SPREAD = 0.25


@dataclass(frozen=True)
class Timing:
    """Seconds a call took: the median over samples and the quartiles around it."""

    median: float
    low: float
    high: float
    samples: int

    @property
    def noisy(self) -> bool:
        """Whether the quartiles lie too far apart to tell small differences."""
        return self.high - self.low > NOISY_SPREAD * self.median


def _calls_a_sample(function: Callable[[], Any]) -> int:
    """Warms up; returns how many calls make a sample long enough to time."""
    function()
    start = time.perf_counter()
    function()
    once = max(time.perf_counter() - start, 1e-7)
    return max(1, round(_SAMPLE_SECONDS / once))


def _timing(samples: list[float]) -> Timing:
    if len(samples) == 1:
        return Timing(samples[0], samples[0], samples[0], 1)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, low, high, len(samples))


def compare(
    functions: Mapping[str, Callable[[], Any]], *, seconds: float, seed: int = 0, pause: float = 0.0
) -> dict[str, Timing]:
    """Time all functions in rounds, each round in a new random order, for about `seconds` in all.

    Args:
        functions: name -> function without arguments.
        seconds: time to spend; every function runs in at least five rounds.
        seed: of the order.
        pause: seconds to sleep before a function's sample, followed by a call that is not timed: threads that another
            engine leaves spinning come to rest.

    Returns:
        name -> timing of one call.
    """
    order = random.Random(seed)  # noqa: S311 - an order of measurements, not a secret
    calls = {name: _calls_a_sample(function) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < 5 or time.perf_counter() < deadline:
        for name in order.sample(list(functions), len(functions)):
            function = functions[name]
            if pause:
                time.sleep(pause)
                function()
            start = time.perf_counter()
            for _ in range(calls[name]):
                function()
            samples[name].append((time.perf_counter() - start) / calls[name])
        rounds += 1
    return {name: _timing(values) for name, values in samples.items()}
