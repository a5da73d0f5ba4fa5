"""Timing on a shared machine: stolen time, noise, budgets. Clocks are mocked; nothing is timed."""

import time
from collections.abc import Callable
from itertools import cycle

import pytest

from sparsekit.timing.comparing import Clock, Timing, clock_for, compare


class Machine:
    """Mocked clocks, which only advance when a function advances them."""

    def __init__(self) -> None:
        self.wall = self.process = self.thread = 0.0
        self.calls = 0

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.process, lambda: self.thread)

    def spend(self, wall: float, process: float | None = None, thread: float | None = None) -> None:
        self.calls += 1
        self.wall += wall
        self.process += wall if process is None else process
        self.thread += wall if thread is None else thread

    def function(self, *calls: tuple[float, ...]) -> Callable[[], None]:
        """A function that takes these times in turn: wall time, and processor time of the process and the calling
        thread."""
        times = cycle(calls)
        return lambda: self.spend(*next(times))


def test_what_was_stolen_does_not_count():
    machine = Machine()
    disturbed = machine.function((0.002,), (0.020, 0.002, 0.002), (0.050, 0.002, 0.002))
    timings = compare({"quiet": machine.function((0.003,)), "disturbed": disturbed}, seconds=1.0, clock=machine.clock)
    found = timings["disturbed"]
    assert (found.low, found.median, found.high) == pytest.approx((0.002,) * 3)
    assert found.disturbed == pytest.approx(found.samples * 2 / 3, abs=1)
    assert not found.noisy
    assert timings["quiet"].disturbed == 0


def test_a_caller_that_was_stopped_is_seen_though_other_threads_ran_on():
    """A thread that waits by spinning is counted as work of the process."""
    machine = Machine()
    function = machine.function((0.002, 0.004, 0.002), (0.020, 0.022, 0.002))
    timing = compare({"a": function}, seconds=0.5, clock=machine.clock)["a"]
    assert timing.median == pytest.approx(0.002)
    assert timing.disturbed == pytest.approx(timing.samples / 2, abs=1)


def test_a_caller_that_waits_for_its_own_threads_is_not_disturbed():
    machine = Machine()
    timing = compare(
        {"a": machine.function((0.002, 0.004, 0.0), (0.002, 0.002, 0.0001))}, seconds=0.1, clock=machine.clock
    )
    assert timing["a"].disturbed == 0
    assert not timing["a"].noisy


def test_where_all_was_stolen_the_fastest_sample_counts_and_is_called_noisy():
    machine = Machine()
    function = machine.function((0.030, 0.001, 0.001), (0.010, 0.001, 0.001))
    timing = compare({"a": function}, seconds=0.2, clock=machine.clock)["a"]
    assert (timing.low, timing.high) == pytest.approx((0.010, 0.010))
    assert timing.disturbed == timing.samples
    assert timing.noisy


def test_it_goes_on_while_noisy_and_stops_when_it_is_not():
    machine = Machine()
    slow = iter([0.001, 0.009] * 20)
    function = lambda: machine.spend(next(slow, 0.002))  # noqa: E731
    timing = compare({"a": function}, seconds=0.02, at_most=10.0, clock=machine.clock)["a"]
    assert not timing.noisy
    assert timing.median == pytest.approx(0.002)
    assert machine.wall < 1.0


def test_samples_become_shorter_until_some_are_undisturbed():
    """Every hundredth call is stopped: no sample of a hundred is whole, many of a few calls are."""
    machine = Machine()
    function = machine.function(*[(1e-5,)] * 99, (0.02, 1e-5, 1e-5))
    timing = compare({"a": function}, seconds=0.02, at_most=5.0, clock=machine.clock)["a"]
    assert timing.median == pytest.approx(1e-5)
    assert not timing.noisy


def test_the_budget_ends_what_stays_noisy():
    machine = Machine()
    functions = {"steady": machine.function((0.001,)), "noisy": machine.function((0.001,), (0.005,))}
    timings = compare(functions, seconds=0.02, at_most=2.0, clock=machine.clock)
    assert timings["noisy"].noisy
    assert not timings["steady"].noisy
    assert timings["steady"].samples == timings["noisy"].samples
    assert 2.0 <= machine.wall < 3.0


def test_without_a_budget_noise_changes_nothing():
    machine = Machine()
    compare({"a": machine.function((0.001,), (0.005,))}, seconds=0.02, clock=machine.clock)
    assert machine.wall < 0.05


def test_a_slow_first_look_does_not_make_samples_too_short():
    """Calls a sample are told from the fastest of three calls: one that was disturbed must not decide."""
    machine = Machine()
    times = iter([0.0, 0.05])
    timing = compare({"a": lambda: machine.spend(next(times, 1e-5))}, seconds=0.01, clock=machine.clock)["a"]
    assert timing.median == pytest.approx(1e-5)
    assert machine.calls > 5 * 90


def test_long_calls_run_no_more_often_than_needed():
    machine = Machine()
    compare({"a": machine.function((2.0,))}, seconds=0.02, at_most=0.5, clock=machine.clock)
    assert machine.calls == 7, "one to warm up, one to see how long it takes, five rounds"
    machine = Machine()
    timing = compare({"a": machine.function((2.0,))}, seconds=0.02, at_most=3.0, least_rounds=2, clock=machine.clock)
    assert machine.calls == 4
    assert not timing["a"].noisy


def test_few_undisturbed_samples_are_noisy():
    assert Timing(1.0, 0.99, 1.01, 9, 5).noisy
    assert not Timing(1.0, 0.99, 1.01, 9, 4).noisy
    assert Timing(1.0, 0.99, 1.01, 2, 1).noisy
    assert not Timing(1.0, 0.99, 1.01, 2).noisy
    assert Timing(1.0, 0.8, 1.2, 9).noisy


def test_what_caches_held_of_others_is_not_timed():
    """Each function's first call behind another one is slow."""
    machine, last = Machine(), []

    def function(name: str) -> Callable[[], None]:
        def call() -> None:
            machine.spend(0.002 if last == [name] else 0.008)
            last[:] = [name]

        return call

    functions = {name: function(name) for name in "abc"}
    timings = compare(functions, seconds=1.0, warm=dict.fromkeys(functions, 2), clock=machine.clock)
    assert [timing.high for timing in timings.values()] == pytest.approx([0.002] * 3)
    cold = compare(functions, seconds=1.0, clock=machine.clock)
    assert any(timing.median > 0.004 for timing in cold.values())


def test_calls_on_one_thread_are_timed_by_its_work():
    assert clock_for(1).wall is time.thread_time
    assert clock_for(2) == Clock()
