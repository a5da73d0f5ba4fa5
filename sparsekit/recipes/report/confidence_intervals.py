"""95% confidence intervals of scores: Wilson's for proportions, else bootstrap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from sparsekit.recipes.tasks.task import Task

#: Lower and upper bound.
Interval: TypeAlias = list[float]
#: Difference of two scores, and its interval.
Difference: TypeAlias = tuple[float, Interval]

#: Description to print with the intervals.
METHOD = "95%: Wilson's for accuracy and recall, else from 500 bootstrap samples of the test data"
_DEVIATIONS = 1.959964  # 97.5% quantile of the normal distribution
_SAMPLES = 500


def wilson(part: float, count: int) -> Interval:
    """Wilson's interval of a proportion (Wilson, 1927).

    Args:
        part: observed proportion, in [0, 1].
        count: sample size.

    >>> [round(end, 3) for end in wilson(0.9, 100)]
    [0.826, 0.945]
    """
    square = _DEVIATIONS**2 / count
    middle = (part + square / 2) / (1 + square)
    half = math.sqrt(part * (1 - part) * square + square**2 / 4) / (1 + square)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def intervals(task: Task, predictions: np.ndarray[Any, Any]) -> dict[str, Interval]:
    """The interval of every score of a task.

    Args:
        task: the task.
        predictions: result of `task.predictions`.

    Returns:
        Score -> lower and upper bound; scores that are undefined for every bootstrap sample are left out.
    """
    scores = task.scores_of(predictions)
    found = {name: wilson(scores[name], len(predictions)) for name in scores if name in task.proportions}
    rest = [name for name in scores if name not in found]
    return found if not rest else {**found, **_percentiles(rest, _bootstrap(task, predictions))}


def paired_differences(task: Task, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> dict[str, Difference]:
    """Paired differences of two models' scores, from the same bootstrap samples of the test data for both.

    Args:
        task: the task.
        first: result of `task.predictions` of one model.
        second: result for another model on the same test data, in the same order.

    Returns:
        Score -> difference, second minus first, and its interval; scores undefined for every sample are left out.

    Raises:
        ValueError: the numbers of predictions differ.
    """
    if len(first) != len(second):
        raise ValueError(f"both models must be scored on the same test data, got {len(first)} and {len(second)} rows")
    before, after = task.scores_of(first), task.scores_of(second)
    pairs = zip(_bootstrap(task, first), _bootstrap(task, second), strict=True)
    differences = [{name: other[name] - one[name] for name in one} for one, other in pairs]
    return {name: (after[name] - before[name], ends) for name, ends in _percentiles(before, differences).items()}


def _bootstrap(task: Task, predictions: np.ndarray[Any, Any]) -> list[dict[str, float]]:
    """Scores of bootstrap samples; rows depend only on the number of predictions."""
    chosen = np.random.default_rng(0).integers(len(predictions), size=(_SAMPLES, len(predictions)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sample may lack a class, or be constant
        return [task.scores_of(predictions[rows]) for rows in chosen]


def _percentiles(names: Iterable[str], samples: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    found = {}
    for name in names:
        values = np.array([one[name] for one in samples])
        if np.isfinite(values).any():
            low, high = np.nanpercentile(values, [2.5, 97.5])
            found[name] = [float(low), float(high)]
    return found
