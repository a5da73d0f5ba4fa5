"""Evolution of levels: within its budget, deterministic, never worse than its start, and better on planted problems."""

import itertools
import math

import numpy as np
import pytest

from sparsekit.choose.assignments.dynamic_programming import assign_levels
from sparsekit.choose.assignments.evolution import Evolved, evolve
from sparsekit.choose.assignments.levels import SPARSITIES

LAYERS = [f"layer{number}" for number in range(10)]
SIZES = {name: 1.0 + number % 3 for number, name in enumerate(LAYERS)}
BATCHES = 16


def seconds(assignment: dict[str, int]) -> float:
    """A fixed part, and for each layer what it keeps; a dense layer is as fast as one of 50% zeros."""
    kept = {name: 0.5 if level == 0 else 1 - SPARSITIES[level] for name, level in assignment.items()}
    return 1.0 + math.fsum(SIZES[name] * part for name, part in kept.items())


class Planted:
    """Layers 0 to 4 are ten times as sensitive as the others, by batches that differ; counts how often it is asked."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.weights = {name: rng.uniform(0.5, 1.5, BATCHES) * (10 if name < "layer5" else 1) for name in LAYERS}
        self.asked: list[tuple[tuple[int, ...], int]] = []

    def __call__(self, assignment, batches) -> float:
        self.asked.append((tuple(assignment.values()), len(batches)))
        assert seconds(assignment) <= BUDGET
        rows = [self.weights[name][list(batches)].mean() * SPARSITIES[level] ** 4 for name, level in assignment.items()]
        return math.fsum(rows)


BUDGET = 6.0
START = dict.fromkeys(LAYERS, 5)


def found(**options) -> tuple[Evolved, Planted]:
    judge = Planted()
    return evolve(START, seconds, BUDGET, judge, BATCHES, **{"generations": 60, **options}), judge


def test_it_improves_a_planted_problem_nearly_to_the_optimum():
    best, judge = found()
    costs = {name: [judge.weights[name].mean() * one**4 for one in SPARSITIES] for name in LAYERS}
    times = {name: [seconds(START | {name: level}) - seconds(START) + 1 for level in range(8)] for name in LAYERS}
    optimum = assign_levels(costs, times, BUDGET + 0.01 - seconds(START) + len(LAYERS))  # which rounding does not miss
    least = math.fsum(costs[name][level] for name, level in optimum.items())
    assert best.start == judge(START, range(BATCHES))
    assert best.divergence == judge(best.assignment, range(BATCHES))
    assert least <= best.divergence < least + 0.1 * (best.start - least)


def test_the_budget_holds_for_all_offspring():
    _, judge = found(generations=10)
    assert len({assignment for assignment, _ in judge.asked}) > 100  # and each was held against it
    assert all(seconds(dict(zip(LAYERS, assignment, strict=True))) <= BUDGET for assignment, _ in judge.asked)


def test_levels_that_are_no_faster_are_not_tried():
    _, judge = found(generations=10)
    assert not any(1 in assignment for assignment, _ in judge.asked)


def test_survivors_are_judged_on_more_batches():
    best, judge = found(generations=1)
    assert best.generations == 1
    assert [count for _, count in judge.asked] == [16] + [1] * 16 + [4] * 4 + [16] * 2
    _, judge = found(generations=1, steps=(), offspring=3)
    assert [count for _, count in judge.asked] == [16] * 4


def test_the_same_seed_gives_the_same_result():
    (one, asked), (other, again), (third, differently) = found(seed=1), found(seed=1), found(seed=2)
    assert one == other
    assert asked.asked == again.asked
    assert asked.asked != differently.asked
    assert third.divergence < third.start


def test_it_is_never_worse_than_its_start_though_few_batches_mislead():
    def judge(assignment, batches) -> float:
        distance = sum(abs(level - 5) for level in assignment.values())
        return distance if len(batches) == BATCHES else -distance

    best = evolve(START, seconds, BUDGET, judge, BATCHES, generations=5)
    assert best == Evolved(START, 0.0, 0.0, 5)


def test_what_is_not_finite_never_wins():
    best = evolve(START, seconds, BUDGET, lambda one, _: 1.0 if one == START else math.inf, BATCHES, generations=3)
    assert best.assignment == START


def test_progress_and_deadline():
    told: list[Evolved] = []
    best, _ = found(generations=8, on_generation=told.append)
    assert [one.generations for one in told] == list(range(1, 9))
    assert all(later.divergence <= one.divergence for one, later in itertools.pairwise(told))
    assert told[-1] == best
    late, judge = found(deadline=0.0)
    assert late.assignment == START
    assert late.generations == 0
    assert len(judge.asked) == 1


def test_it_ends_where_nothing_can_be_swapped():
    dense = dict.fromkeys(LAYERS, 0)
    best = evolve(dense, seconds, math.inf, lambda *_: 0.0, 1)
    assert best == Evolved(dense, 0.0, 0.0, 0)
    sparsest = dict.fromkeys(LAYERS, 7)
    assert evolve(sparsest, seconds, seconds(sparsest), lambda *_: 1.0, 1).assignment == sparsest


def test_time_that_is_left_makes_layers_denser():
    sparsest = dict.fromkeys(LAYERS, 7)
    best = evolve(sparsest, seconds, BUDGET, Planted(), BATCHES, generations=1)
    assert seconds(best.assignment) > BUDGET - 0.5
    assert best.divergence < best.start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 1.0}, "the start takes .* more than the budget of 1.0 s; begin with assign_levels"),
        ({"start": {"layer0": 8}}, r"levels must be from 0 to 7, see \['layer0'\]"),
        ({"start": {}}, "there must be a layer"),
        ({"batches": 0}, "batches must be at least 1, got 0"),
        ({"offspring": 0}, "offspring must be at least 1"),
        ({"steps": [(0.5, 0)]}, "survivors must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    given = {"start": START, "seconds": seconds, "budget": BUDGET, "judge": Planted(), "batches": BATCHES}
    with pytest.raises(ValueError, match=message):
        evolve(**given | arguments)
