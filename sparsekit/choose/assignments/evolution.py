"""Improve an assignment of levels by evolution, judged on the model itself.

EvoPress (Sieberling et al., arXiv 2410.14649): offspring of one parent differ by few level swaps, and few texts are
enough to leave the worst out; survivors are compared on more. There all offspring have one sparsity, here all are
within a budget of seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from sparsekit.choose.assignments.levels import SPARSITIES, Assignment
from sparsekit.progress import Progress

#: Seconds of a call, of an assignment.
Seconds: TypeAlias = Callable[[Assignment], float]
#: Mean divergence from the dense model, of an assignment and the numbers of the batches that count.
Judge: TypeAlias = Callable[[Assignment, Sequence[int]], float]

#: Selection of offspring before they are compared with the parent on all batches: part of the batches, survivors.
STEPS = ((1 / 16, 4), (1 / 4, 2))
#: How often a parent is changed until the result is one that was not seen before.
_TRIES = 20


@dataclass(frozen=True)
class Evolved:
    """The best assignment so far.

    Attributes:
        assignment: of levels to layers.
        divergence: from the dense model on all batches.
        start: that of the assignment from which evolution started.
        generations: how many there were.
    """

    assignment: Assignment
    divergence: float
    start: float
    generations: int = 0


def _levels_that_pay(start: Assignment, seconds: Seconds) -> dict[str, list[int]]:
    """Each layer's levels that are faster than all before them, other layers being as in `start`."""
    found: dict[str, list[int]] = {}
    for name in start:
        least, found[name] = math.inf, []
        for level in range(len(SPARSITIES)):
            taken = seconds(start | {name: level})
            if taken < least:
                least = taken
                found[name].append(level)
    return found


@dataclass(frozen=True)
class _Swaps:
    """Swaps levels of layers within a budget of seconds."""

    seconds: Seconds
    budget: float
    levels: dict[str, list[int]]  # that a layer may have
    most: int  # swaps of an offspring
    rng: np.random.Generator

    def _denser(self, assignment: Assignment, name: str) -> int | None:
        return max((level for level in self.levels[name] if level < assignment[name]), default=None)

    def _sparser(self, assignment: Assignment, name: str) -> int | None:
        return min((level for level in self.levels[name] if level > assignment[name]), default=None)

    def _fits(self, assignment: Assignment) -> bool:
        return self.seconds(assignment) <= self.budget

    def _swapped(self, assignment: Assignment, kept: set[str]) -> Assignment | None:
        """One layer denser and others, not those kept, sparser until that fits; None if it cannot be."""
        options = [name for name in assignment if self._denser(assignment, name) is not None]
        if not options:
            return None
        chosen = options[self.rng.integers(len(options))]
        kept.add(chosen)
        found = assignment | {chosen: self._denser(assignment, chosen) or 0}
        while not self._fits(found):
            options = [name for name in found if name not in kept and self._sparser(found, name) is not None]
            if not options:
                return None
            name = options[self.rng.integers(len(options))]
            found[name] = self._sparser(found, name) or 0
        return found

    def _filled(self, assignment: Assignment, parent: Assignment) -> Assignment:
        """Layers made denser while that fits, but for those that were just made sparser."""
        waiting = [name for name in assignment if assignment[name] <= parent[name]]
        found = dict(assignment)
        while waiting:
            name = waiting[self.rng.integers(len(waiting))]
            level = self._denser(found, name)
            if level is not None and self._fits(found | {name: level}):
                found[name] = level
            else:
                waiting.remove(name)
        return found

    def offspring(self, parent: Assignment) -> Assignment | None:
        """A parent after a few swaps, most often one; None if a swap cannot be."""
        found: Assignment | None = parent
        kept: set[str] = set()
        for _ in range(self.rng.integers(1, self.most + 1, 2).min()):
            found = None if found is None else self._swapped(found, kept)
        return None if found is None else self._filled(found, parent)


def _new_offspring(swaps: _Swaps, parent: Assignment, count: int) -> list[Assignment]:
    """Different offspring that are not the parent, as many as are found."""
    seen = {tuple(parent.values())}
    found = []
    for _ in range(count * _TRIES):
        one = swaps.offspring(parent)
        if one is not None and tuple(one.values()) not in seen:
            seen.add(tuple(one.values()))
            found.append(one)
        if len(found) == count:
            break
    return found


class _DeadlineReached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a generation."""


def _judged_until(judge: Judge, deadline: float | None) -> Judge:
    def judged(assignment: Assignment, batches: Sequence[int]) -> float:
        if deadline is not None and time.monotonic() >= deadline:
            raise _DeadlineReached
        return judge(assignment, batches)

    return judged


def _best(
    offspring: list[Assignment],
    judge: Judge,
    batches: int,
    steps: Sequence[tuple[float, int]],
    rng: np.random.Generator,
) -> tuple[float, Assignment]:
    """Divergence on all batches of the best offspring, and it itself, after steps of selection."""
    for part, survivors in steps:
        if len(offspring) > survivors:
            size = max(1, round(part * batches))
            chosen = sorted(rng.permutation(batches)[:size].tolist())
            scores = [judge(one, chosen) for one in offspring]
            offspring = [offspring[index] for index in np.argsort(scores, kind="stable")[:survivors]]
    scores = [judge(one, range(batches)) for one in offspring]
    best = int(np.argmin(scores))
    return scores[best], offspring[best]


def _check(start: Assignment, seconds: Seconds, budget: float, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    wrong = [name for name, level in start.items() if level not in range(len(SPARSITIES))]
    if wrong or not start:
        raise ValueError(f"levels must be from 0 to {len(SPARSITIES) - 1}, see {wrong[:3]}; there must be a layer")
    taken = seconds(start)
    if not taken <= budget:
        raise ValueError(f"the start takes {taken} s, more than the budget of {budget} s; begin with assign_levels")


def evolve(
    start: Assignment,
    seconds: Seconds,
    budget: float,
    judge: Judge,
    batches: int,
    *,
    generations: int = 100,
    offspring: int = 16,
    swaps: int = 3,
    steps: Sequence[tuple[float, int]] = STEPS,
    seed: int = 0,
    deadline: float | None = None,
    on_generation: Callable[[Evolved], None] | None = None,
) -> Evolved:
    """Swap levels of layers so that the model's outputs come closer to the dense model's, within a budget of seconds.

    A swap makes one layer denser and others sparser until the budget holds; what is left of it makes further layers
    denser. An offspring takes the parent's place only if its divergence on all batches is lower.

    Args:
        start: the first parent, within the budget.
        seconds: predicts how long a call takes; it is asked very often.
        budget: seconds that no offspring may exceed.
        judge: measures the divergence of an assignment on some batches.
        batches: how many there are.
        generations: at most so many.
        offspring: of each generation.
        swaps: most swaps of an offspring; fewer are more frequent.
        steps: of selection, each with a part of the batches, chosen at random, and the number of survivors. The last
            ones are judged on all batches.
        seed: the same one gives the same result, unless the deadline ends the search.
        deadline: of `time.monotonic()`; what is best by then is returned.
        on_generation: called after each with the best so far.

    Returns:
        The best assignment, never worse than the start on all batches.

    Raises:
        ValueError: the start is not within the budget, or a number is out of range.
    """
    counts = {"batches": batches, "offspring": offspring, "swaps": swaps}
    _check(start, seconds, budget, counts | {"survivors": min((one for _, one in steps), default=1)})
    rng = np.random.default_rng(seed)
    mutation = _Swaps(seconds, budget, _levels_that_pay(start, seconds), swaps, rng)
    first = judge(start, range(batches))
    best = Evolved(dict(start), first, first)
    judged = _judged_until(judge, deadline)
    for number in Progress(range(generations), title="search", unit="generations"):
        children = _new_offspring(mutation, best.assignment, offspring)
        if not children:
            break
        try:
            divergence, child = _best(children, judged, batches, steps, rng)
        except _DeadlineReached:
            break
        if divergence < best.divergence:
            best = replace(best, assignment=child, divergence=divergence)
        best = replace(best, generations=number + 1)
        if on_generation is not None:
            on_generation(best)
    return best
