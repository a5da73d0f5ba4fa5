"""Levels of least cost within a budget: against all combinations, and never above the budget."""

import itertools
import math

import numpy as np
import pytest

from sparsekit.choose.assignments.dynamic_programming import assign_levels


def problem(seed: int) -> tuple[dict, dict, float]:
    rng = np.random.default_rng(seed)
    layers, levels = rng.integers(1, 6), rng.integers(2, 5)
    costs, seconds = ({f"layer{i}": tuple(rng.random(levels)) for i in range(layers)} for _ in range(2))
    least, most = (math.fsum(pick(row) for row in seconds.values()) for pick in (min, max))
    return costs, seconds, least + (most - least) * rng.random()


def combinations(costs: dict, seconds: dict) -> list[tuple[float, float]]:
    """Cost and seconds of every assignment."""
    levels = range(len(next(iter(costs.values()))))
    return [
        tuple(
            math.fsum(row[level] for row, level in zip(table.values(), chosen, strict=True))
            for table in (costs, seconds)
        )
        for chosen in itertools.product(levels, repeat=len(costs))
    ]


@pytest.mark.parametrize("buckets", [1, 40, 10_000])
@pytest.mark.parametrize("seed", range(40))
def test_cost_is_least_but_for_rounding_and_the_budget_holds(seed, buckets):
    costs, seconds, budget = problem(seed)
    found = assign_levels(costs, seconds, budget, buckets=buckets)
    assert list(found) == list(costs)
    assert math.fsum(seconds[name][level] for name, level in found.items()) <= budget
    cost = math.fsum(costs[name][level] for name, level in found.items())
    every = combinations(costs, seconds)
    slack = budget - min(taken for _, taken in every)
    within = [one for one, taken in every if taken <= budget]
    surely = [one for one, taken in every if taken <= budget - len(costs) * slack / buckets]
    assert cost >= min(within) - 1e-12
    assert cost <= min(surely, default=math.inf) + 1e-12


def test_whole_seconds_in_as_many_buckets_are_exact():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = {f"layer{i}": tuple(rng.random(4)) for i in range(4)}
        seconds = {name: tuple(rng.integers(0, 8, 4).tolist()) for name in costs}
        least = sum(map(min, seconds.values()))
        found = assign_levels(costs, seconds, least + 6, buckets=6)
        cost = math.fsum(costs[name][level] for name, level in found.items())
        assert cost == min(one for one, taken in combinations(costs, seconds) if taken <= least + 6)


def test_the_fastest_assignment_is_a_budget_that_holds():
    costs, seconds, _ = problem(3)
    least = math.fsum(min(row) for row in seconds.values())
    found = assign_levels(costs, seconds, least)
    assert all(seconds[name][level] == min(seconds[name]) for name, level in found.items())


def test_tables_may_be_arrays_in_any_order():
    costs, seconds, budget = problem(5)
    turned = {name: np.array(seconds[name]) for name in reversed(seconds)}
    assert assign_levels(costs, turned, budget) == assign_levels(costs, seconds, budget)


def test_an_endless_budget_takes_the_least_costs():
    costs, seconds, _ = problem(4)
    found = assign_levels(costs, seconds, math.inf)
    assert all(costs[name][level] == min(costs[name]) for name, level in found.items())


def test_an_impossible_budget_names_the_nearest():
    costs, seconds = {"a": (0.0, 1.0), "b": (0.0, 1.0)}, {"a": (3.0, 1.0), "b": (4.0, 0.5)}
    with pytest.raises(ValueError, match=r"no assignment is within 1.25 s: the fastest takes 1.5 s"):
        assign_levels(costs, seconds, 1.25)
    with pytest.raises(ValueError, match="within nan s"):
        assign_levels(costs, seconds, math.nan)


def test_levels_of_infinite_cost_are_never_taken():
    costs, seconds = {"a": (0.0, 0.2, math.inf), "b": (0.0, 0.1, 0.9)}, {"a": (3.0, 2.0, 1.0), "b": (3.0, 2.0, 1.0)}
    assert assign_levels(costs, seconds, 3.5) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="the fastest takes 3.0 s"):
        assign_levels(costs, seconds, 2.5)


@pytest.mark.parametrize(
    ("costs", "seconds", "message"),
    [
        ({}, {}, "at least one"),
        ({"a": (0.0,)}, {"b": (0.0,)}, "same layers"),
        ({"a": (0.0,), "b": (0.0, 1.0)}, {"a": (0.0,), "b": (0.0, 1.0)}, r"same number of levels .* got \[1, 2\]"),
        ({"a": (0.0,)}, {"a": (0.0, 1.0)}, "costs have 1 levels and seconds 2"),
        ({"a": (math.nan,)}, {"a": (0.0,)}, "costs must not be negative or NaN"),
        ({"a": (0.0,)}, {"a": (-1.0,)}, "seconds must not be negative"),
    ],
)
def test_bad_tables(costs, seconds, message):
    with pytest.raises(ValueError, match=message):
        assign_levels(costs, seconds, 1.0)


def test_bad_buckets():
    with pytest.raises(ValueError, match="buckets must be at least 1, got 0"):
        assign_levels({"a": (0.0,)}, {"a": (0.0,)}, 1.0, buckets=0)
