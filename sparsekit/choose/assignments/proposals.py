"""Propose assignments: of every form, for the times that uniform sparsities take, those with the closest outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sparsekit.choose.assignments.dynamic_programming import assign_levels
from sparsekit.choose.assignments.evolution import evolve
from sparsekit.choose.assignments.fitness import Divergence
from sparsekit.choose.assignments.levels import Assignment, Form
from sparsekit.choose.assignments.sensitivity import measured_costs
from sparsekit.choose.solutions.finding import Solutions
from sparsekit.choose.solutions.stitched import Stitched
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.model_times import ModelTimes

#: Levels whose uniform assignments set the times that are aimed at: 60 to 90% zeros.
_AIMS = (2, 3, 4, 5, 6)
#: Part of the fastest dense model's time that an aim is below: else nothing is gained by zeros.
_GAIN = 0.95
#: Batches on which each layer is pruned alone, to see how much outputs move.
_SENSED = 2
#: Most generations of evolution, where time does not end it.
_GENERATIONS = 100


#: A form, and the level of the uniform assignment whose time is aimed at.
Aim: TypeAlias = tuple[Form, int]


@dataclass(frozen=True)
class Proposal:
    """An assignment, and what is known of it before training.

    Attributes:
        form: of the weights.
        assignment: of levels to layers.
        speedup: over the dense model in float32 in the engine, predicted.
        divergence: of the outputs from the dense model's, in float32.
    """

    form: Form
    assignment: Assignment
    speedup: float
    divergence: float


class RelativeTime:
    """Time of an assignment as a part of the dense float32 model's: the mean over calls.

    Args:
        times: of the model.
        form: of the weights.
        calls: of the model.
    """

    def __init__(self, times: ModelTimes, form: Form, calls: Sequence[Call]) -> None:
        layers = [times.of_layers(form, call) for call in calls]
        dense = [_dense_seconds(times, call) for call in calls]
        weights = [1.0 / (len(calls) * seconds) for seconds in dense]
        rests = [times.rest(form, call) for call in calls]
        self.rest = sum(weight * rest for weight, rest in zip(weights, rests, strict=True))
        self.of_layers: dict[str, list[float]] = {
            name: np.sum([weight * one[name] for weight, one in zip(weights, layers, strict=True)], axis=0).tolist()
            for name in layers[0]
        }

    def __call__(self, assignment: Assignment) -> float:
        """Of an assignment."""
        return self.rest + math.fsum(self.of_layers[name][level] for name, level in assignment.items())


def _dense_seconds(times: ModelTimes, call: Call) -> float:
    form = Form("float32", "unstructured")
    return times.predicted(dict.fromkeys(times.of_layers(form, call), 0), form, call)


def aims_of(relative: Mapping[Form, RelativeTime]) -> list[Aim]:
    """Forms, and the levels whose uniform assignments are faster than the dense model in any form, slowest first.

    Args:
        relative: form -> time of an assignment.
    """
    dense = min(seconds(dict.fromkeys(seconds.of_layers, 0)) for seconds in relative.values())
    return [
        (form, level)
        for level in _AIMS
        for form, seconds in relative.items()
        if seconds(dict.fromkeys(seconds.of_layers, level)) < _GAIN * dense
    ]


def propose(
    model: Any,
    solutions: Solutions,
    divergence: Divergence,
    relative: Mapping[Form, RelativeTime],
    aims: Sequence[Aim],
    *,
    deadline: float,
    seed: int,
) -> Iterator[Proposal]:
    """Assignments of forms with one mask structure, one for each aim.

    Each takes at most the time of a uniform sparsity. It starts from that, or from the least sum of layers' errors
    within that time, whichever moves outputs less, and evolves on the model's own outputs.

    Args:
        model: the dense model; its weights are the same afterwards.
        solutions: of its layers.
        divergence: from the dense model.
        relative: form -> time of an assignment.
        aims: forms, and levels whose uniform assignments set the time.
        deadline: `time.monotonic()` at which evolution ends; the time left is shared by the assignments to come.
        seed: of evolution.
    """
    with Stitched(model, solutions) as stitched:
        judge = _judge(stitched, divergence)
        costs = measured_costs(solutions.errors(), judge, range(min(_SENSED, len(divergence))))
        for number, (form, level) in enumerate(aims):
            until = time.monotonic() + max(0.0, deadline - time.monotonic()) / (len(aims) - number)
            uniform, seconds = dict.fromkeys(costs, level), relative[form]
            budget = seconds(uniform)
            allocated = assign_levels(costs, seconds.of_layers, _products_budget(seconds, budget))
            start = min((uniform, allocated), key=lambda one: judge(one, range(len(divergence))))
            found = evolve(
                start, seconds, budget, judge, len(divergence), generations=_GENERATIONS, seed=seed, deadline=until
            )
            yield Proposal(form, found.assignment, 1.0 / seconds(found.assignment), found.divergence)


def _products_budget(seconds: RelativeTime, budget: float) -> float:
    """What products may take, not below the fastest: the sum over layers is rounded otherwise there."""
    return max(budget - seconds.rest, math.fsum(min(one) for one in seconds.of_layers.values()))


def _judge(stitched: Stitched, divergence: Divergence) -> Callable[[Assignment, Sequence[int]], float]:
    def judge(assignment: Assignment, batches: Sequence[int]) -> float:
        stitched.put(assignment)
        return divergence(batches)

    return judge


def worth_training(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Proposals that no other beats in both predicted speed and divergence, slowest first."""
    found: list[Proposal] = []
    for one in sorted(proposals, key=lambda one: (-one.speedup, one.divergence)):
        if not found or one.divergence < found[-1].divergence:
            found.append(one)
    return found[::-1]
