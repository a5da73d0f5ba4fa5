"""The assignment of levels to layers that costs least within a budget of seconds.

The dynamic program of SPDY (Frantar and Alistarh, arXiv 2201.11096): seconds are cut into buckets, and the
least cost of the first layers is known for every number of buckets. Here buckets hold what a layer takes beyond its
fastest level, rounded up: the budget is never exceeded, and met whenever the fastest levels meet it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit.choose.assignments.levels import Assignment

#: A value for each level of every layer.
ByLevel: TypeAlias = Mapping[str, Sequence[float] | NDArray[np.float64]]

#: What rounding up can lose of the time between the budget and the fastest assignment: one part for each layer.
_BUCKETS = 10_000


def _table(name: str, given: ByLevel, layers: Sequence[str]) -> NDArray[np.float64]:
    """Values of layers and levels, shape [layers, levels]."""
    lengths = sorted({len(values) for values in given.values()})
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError(f"{name} must have the same number of levels for every layer, at least one, got {lengths}")
    table = np.array([given[name] for name in layers], np.float64)
    if np.isnan(table).any() or (table < 0).any():
        raise ValueError(f"{name} must not be negative or NaN")
    return table


def _cheapest(costs: NDArray[np.float64], widths: NDArray[np.int64], buckets: int) -> NDArray[np.int16]:
    """The level of each layer that costs least together with the layers before it, shape [layers, buckets + 1]."""
    least = np.zeros(buckets + 1)
    chosen = np.empty((len(costs), buckets + 1), np.int16)
    capacities = np.arange(buckets + 1)
    for layer, (cost, width) in enumerate(zip(costs, widths, strict=True)):
        left = capacities - width[:, None]
        sums = np.where(left < 0, np.inf, least[np.maximum(left, 0)] + cost[:, None])
        chosen[layer] = sums.argmin(axis=0)
        least = sums.min(axis=0)
    return chosen


def _traced(chosen: NDArray[np.int16], widths: NDArray[np.int64], capacity: int) -> list[int]:
    """The levels of all layers that a number of buckets has room for."""
    levels = []
    for layer in reversed(range(len(chosen))):
        level = int(chosen[layer, capacity])
        capacity -= int(widths[layer, level])
        levels.append(level)
    return levels[::-1]


def assign_levels(
    costs: ByLevel,
    seconds: ByLevel,
    budget: float,
    *,
    buckets: int = _BUCKETS,
) -> Assignment:
    """The level of each layer such that the sum of costs is least, and that of seconds at most the budget.

    Args:
        costs: layer name -> what each of its levels costs, at least 0; inf for a level that must not be.
        seconds: of the same layers -> how long each takes at each level.
        budget: seconds of all layers together.
        buckets: into how many parts the time between the fastest assignment and the budget is cut. Rounding loses at
            most one part for each layer.

    Returns:
        The assignment, layers in the order of the costs; of levels that cost the same the lower one.

    Raises:
        ValueError: no assignment is within the budget; the arguments do not fit each other, or are negative or NaN.

    >>> costs = {"query": (0.0, 0.1, 0.5), "output": (0.0, 0.2, 0.3)}
    >>> seconds = {"query": (4.0, 2.0, 1.0), "output": (4.0, 2.0, 1.0)}
    >>> assign_levels(costs, seconds, budget=5.0)
    {'query': 0, 'output': 2}
    """
    if set(costs) != set(seconds):
        raise ValueError(f"costs and seconds must be of the same layers, see {sorted(set(costs) ^ set(seconds))[:3]}")
    if buckets < 1:
        raise ValueError(f"buckets must be at least 1, got {buckets}")
    layers = list(costs)
    cost, time = _table("costs", costs, layers), _table("seconds", seconds, layers)
    if cost.shape != time.shape:
        raise ValueError(f"costs have {cost.shape[1]} levels and seconds {time.shape[1]}; expected the same")
    cost, time = (np.where(np.isfinite(cost + time), one, np.inf) for one in (cost, time))
    least = math.fsum(time.min(axis=1))
    if not least <= budget or least == math.inf:
        raise ValueError(f"no assignment is within {budget} s: the fastest takes {least} s; allow at least that")
    return dict(zip(layers, _least_levels(cost, time, budget, buckets), strict=True))


def _widths(time: NDArray[np.float64], budget: float, buckets: int) -> NDArray[np.int64]:
    """Buckets that each level takes beyond the layer's fastest one, more than there are if it takes too long."""
    fastest = time.min(axis=1)
    slowest = math.fsum(np.where(np.isfinite(time), time, 0.0).max(axis=1))
    width = (min(budget, slowest) - math.fsum(fastest)) / buckets
    excess = time - fastest[:, None]
    quotients = np.divide(excess, width, out=np.full_like(excess, np.inf), where=excess < width * (buckets + 1))
    return np.where(excess > 0, np.clip(np.ceil(quotients), 1, buckets + 1), 0).astype(np.int64)


def _least_levels(cost: NDArray[np.float64], time: NDArray[np.float64], budget: float, buckets: int) -> list[int]:
    widths = _widths(time, budget, buckets)
    chosen = _cheapest(cost, widths, buckets)
    capacity, levels = buckets, _traced(chosen, widths, buckets)
    # Quotients are rounded, and the sum may pass the budget by its last digit.
    while capacity and math.fsum(row[level] for row, level in zip(time, levels, strict=True)) > budget:
        capacity -= 1
        levels = _traced(chosen, widths, capacity)
    return levels
