"""Time several functions interleaved, in shuffled order, so that drift of the machine cancels.

On a machine that others use too, a sample may contain time in which the system ran something else. Such time passes on
the wall's clock, not on that of the processors: samples that show it do not count.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Calls in one sample are repeated until they last this long, in seconds.
_SAMPLE_SECONDS = 0.001
#: A first call longer than this is not repeated to see how long a call takes.
_LONG = 0.1
#: A quartile spread above this fraction of the median means that the machine was too noisy to tell small differences.
NOISY_SPREAD = 0.25
#: Samples without stolen time that a timing needs.
_ENOUGH = 5
#: A sample in which processors worked for less than this part of its time was disturbed: a call keeps one busy.
_BUSY = 0.9
#: Of a function whose calling thread works for more than this part of its samples, that thread is watched as well.
_CALLER_WORKS = 0.5


@dataclass(frozen=True)
class Clock:
    """What time is read from, in seconds: the wall's, and what the processors worked for all threads and for this one.

    The system brings the time of other threads up to date only now and then, a few milliseconds apart.
    """

    wall: Callable[[], float] = time.perf_counter
    process: Callable[[], float] = time.process_time
    thread: Callable[[], float] = time.thread_time


def clock_for(threads: int) -> Clock:
    """What calls on so many threads are timed with: one thread waits for none, so that only its own work counts."""
    return Clock(wall=time.thread_time) if threads == 1 else Clock()


@dataclass(frozen=True)
class Timing:
    """Seconds a call took: the median over undisturbed samples and the quartiles around it."""

    median: float
    low: float
    high: float
    samples: int
    disturbed: int = 0  # of the samples; where all were, the fastest counts

    @property
    def noisy(self) -> bool:
        """Whether the quartiles lie too far apart to tell small differences, or too few samples were undisturbed."""
        few = self.samples - self.disturbed < min(_ENOUGH, self.samples)
        return few or self.high - self.low > NOISY_SPREAD * self.median


@dataclass(frozen=True)
class _Sample:
    """Seconds of one call, and the part of the time that processors worked: for the process, for the caller."""

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
    """The samples during which the system ran nothing else in our place."""
    best = max(sample.caller for sample in samples)
    least = _BUSY * best if best > _CALLER_WORKS else 0.0  # else other threads work, and the caller waits for them
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
    """Warms up; returns how many calls make a sample long enough to time."""
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
    """Samples of all functions, taken round by round."""

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
        """One more round."""
        for name in self.order.sample(list(self.functions), len(self.functions)):
            function = self.functions[name]
            if self.pause:
                time.sleep(self.pause)
            for _ in range(self.warm.get(name, int(self.pause > 0))):
                function()
            self.samples[name].append(_sample(function, self.calls[name], self.clock))
        self.number += 1

    def shorten(self) -> None:
        """Take half as many calls a sample, of all functions alike: shorter ones are less likely to be disturbed."""
        self.calls = {name: max(1, calls // 2) for name, calls in self.calls.items()}

    def timings(self) -> dict[str, Timing]:
        """Of the rounds so far."""
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
    """Time all functions in rounds, each round in a new random order, for about `seconds` in all.

    Args:
        functions: name -> function without arguments.
        seconds: time to spend.
        at_most: while a timing is noisy, go on until so many seconds have passed.
        least_rounds: every function runs in so many rounds, however long they take.
        seed: of the order.
        pause: seconds to sleep before a function's sample, followed by a call that is not timed: threads that another
            engine leaves spinning come to rest.
        warm: name -> calls before a function's sample that are not timed either: caches hold what its own calls leave
            there, not those of others.
        clock: what to read the time from.

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
