"""Time several functions interleaved, in random order, so that machine drift cancels.

On a shared machine, a sample may include time that other processes took. That shows in wall time but not in processor
time; such samples do not count.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Shortest sample in seconds; calls are repeated to fill it.
_SAMPLE_SECONDS = 0.001
#: A first call longer than this, in seconds, is not repeated to estimate the time of a call.
_LONG = 0.1
#: Timings whose interquartile range exceeds this fraction of the median are noisy.
NOISY_SPREAD = 0.25
#: Number of undisturbed samples that a timing needs.
_ENOUGH = 5
#: Samples with a lower ratio of processor time to wall time were disturbed: a call keeps one processor busy.
_BUSY = 0.9
#: If the calling thread's share of a sample is usually above this, that thread is checked as well.
_CALLER_WORKS = 0.5


@dataclass(frozen=True)
class Clock:
    """Clocks in seconds: wall time, and processor time of the process and of the calling thread.

    The system updates the processor time of other threads only every few milliseconds.
    """

    wall: Callable[[], float] = time.perf_counter
    process: Callable[[], float] = time.process_time
    thread: Callable[[], float] = time.thread_time


def clock_for(threads: int) -> Clock:
    """What calls on so many threads are timed with: one thread waits for none, so that only its own work counts."""
    return Clock(wall=time.thread_time) if threads == 1 else Clock()


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median and quartiles over undisturbed samples."""

    median: float
    low: float
    high: float
    samples: int
    disturbed: int = 0  # of the samples; where all were, the fastest counts

    @property
    def noisy(self) -> bool:
        """Whether the interquartile range is too large, or too few samples were undisturbed."""
        few = self.samples - self.disturbed < min(_ENOUGH, self.samples)
        return few or self.high - self.low > NOISY_SPREAD * self.median


@dataclass(frozen=True)
class _Sample:
    """Seconds per call, and the ratios of processor to wall time, for the process and the calling thread."""

    seconds: float
    process: float
    caller: float


def _sample(function: Callable[[], Any], calls: int, clock: Clock) -> _Sample:
    caller, process, wall = clock.thread(), clock.process(), clock.wall()
    for _ in range(calls):
        function()
    wall = max(clock.wall() - wall, 1e-9)
    return _Sample(wall / calls, (clock.process() - process) / wall, (clock.thread() - caller) / wall)


def _undisturbed(samples: Sequence[_Sample]) -> list[_Sample]:
    """Samples that no other process disturbed."""
    best = max(sample.caller for sample in samples)
    least = _BUSY * best if best > _CALLER_WORKS else 0.0  # else the caller waits for other threads
    return [sample for sample in samples if sample.process >= _BUSY and sample.caller >= least]


def _timing(samples: Sequence[_Sample]) -> Timing:
    kept = _undisturbed(samples)
    seconds = [sample.seconds for sample in kept] or [min(sample.seconds for sample in samples)]
    disturbed = len(samples) - len(kept)
    if len(seconds) == 1:
        return Timing(seconds[0], seconds[0], seconds[0], len(samples), disturbed)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high, len(samples), disturbed)


def _calls_a_sample(function: Callable[[], Any], clock: Clock) -> int:
    """Warm up; return the number of calls per sample."""
    function()
    once = float("inf")
    for _ in range(3):
        start = clock.wall()
        function()
        once = min(once, max(clock.wall() - start, 1e-7))
        if once > _LONG:
            break
    return max(1, round(_SAMPLE_SECONDS / once))


class _Rounds:
    """Rounds of samples of all functions."""

    def __init__(
        self,
        functions: Mapping[str, Callable[[], Any]],
        seed: int,
        pause: float,
        warm: Mapping[str, int],
        clock: Clock,
    ) -> None:
        self.functions = functions
        self.order = random.Random(seed)  # noqa: S311 - an order of measurements, not a secret
        self.pause, self.warm, self.clock = pause, warm, clock
        self.calls = {name: _calls_a_sample(function, clock) for name, function in functions.items()}
        self.samples: dict[str, list[_Sample]] = {name: [] for name in functions}
        self.number = 0

    def run(self) -> None:
        """Run one more round."""
        for name in self.order.sample(list(self.functions), len(self.functions)):
            function = self.functions[name]
            if self.pause:
                time.sleep(self.pause)
            for _ in range(self.warm.get(name, int(self.pause > 0))):
                function()
            self.samples[name].append(_sample(function, self.calls[name], self.clock))
        self.number += 1

    def shorten(self) -> None:
        """Halve the calls per sample of all functions, since shorter samples are less likely to be disturbed."""
        self.calls = {name: max(1, calls // 2) for name, calls in self.calls.items()}

    def timings(self) -> dict[str, Timing]:
        """Timings from the rounds so far."""
        return {name: _timing(samples) for name, samples in self.samples.items()}


def compare(
    functions: Mapping[str, Callable[[], Any]],
    *,
    seconds: float,
    at_most: float = 0.0,
    least_rounds: int = _ENOUGH,
    seed: int = 0,
    pause: float = 0.0,
    warm: Mapping[str, int] | None = None,
    clock: Clock = Clock(),
) -> dict[str, Timing]:
    """Time all functions in rounds, each in a new random order, for about `seconds` in total.

    Args:
        functions: name -> function without arguments.
        seconds: time to spend.
        at_most: limit in seconds while a timing is noisy.
        least_rounds: smallest number of rounds, however long they take.
        seed: seed of the order.
        pause: seconds to sleep before each sample, followed by an untimed call, so that other engines' threads stop
            spinning.
        warm: name -> untimed calls before each sample, so that caches hold what the function itself leaves there.
        clock: the clocks.

    Returns:
        name -> timing of one call.
    """
    rounds = _Rounds(functions, seed, pause, warm or {}, clock)
    start = clock.wall()
    while rounds.number < least_rounds or clock.wall() - start < seconds:
        rounds.run()
    timings = rounds.timings()
    while clock.wall() - start < at_most and any(timing.noisy for timing in timings.values()):
        if any(2 * timing.disturbed > timing.samples for timing in timings.values()):
            rounds.shorten()
        for _ in range(1 + rounds.number // 4):  # looking at all samples takes time too
            rounds.run()
        timings = rounds.timings()
    return timings
