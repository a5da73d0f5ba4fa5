"""Speed-ups over the best dense engine, from stored rows of the layer benchmark."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Group(NamedTuple):
    """Engines that were measured interleaved."""

    out_features: int
    in_features: int
    batch: int
    threads: int


class Cell(NamedTuple):
    """One speed-up."""

    out_features: int
    in_features: int
    batch: int
    threads: int
    sparsity: float


def groups(rows: Iterable[Mapping[str, Any]]) -> dict[Group, list[Mapping[str, Any]]]:
    """Rows by group."""
    found: dict[Group, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(Group(*(row[name] for name in Group._fields)), []).append(row)
    return found


def in_int8(engine: str) -> bool:
    """Whether an engine multiplies in int8."""
    return "-int8" in engine


def dense_times(members: Iterable[Mapping[str, Any]], *, int8: bool = False) -> list[float]:
    """Microseconds of the dense engines in a group, in float32 or int8.

    Engines with wrong outputs do not count.
    """
    dense = (row for row in members if row["sparsity"] is None and not row.get("wrong"))
    return [row["us"] for row in dense if in_int8(row["engine"]) == int8]


def remarks(row: Mapping[str, Any]) -> str:
    """Notes on a row in the tables of both benchmarks."""
    return " noisy" * bool(row["noisy"]) + " wrong answers here" * bool(row.get("wrong"))


def speedups(
    rows: Iterable[Mapping[str, Any]], engine: str = "sparsekit", *, over_int8: bool = False
) -> dict[Cell, float]:
    """Speed-ups of `engine` over the fastest dense engine of its group, in float32 or int8."""
    found = {}
    for group, members in groups(rows).items():
        dense = dense_times(members, int8=over_int8)
        for row in members:
            if row["engine"] == engine and dense:
                found[Cell(*group, row["sparsity"])] = min(dense) / row["us"]
    return found


def by_sparsity(found: Mapping[Cell, float]) -> dict[tuple[int, int], dict[float, list[float]]]:
    """Speed-ups over all shapes: (threads, batch) -> sparsity -> values, each sorted."""
    table: dict[tuple[int, int], dict[float, list[float]]] = {}
    for cell in sorted(found, key=lambda cell: (cell.threads, cell.batch, cell.sparsity)):
        values = table.setdefault((cell.threads, cell.batch), {})
        values.setdefault(cell.sparsity, []).append(found[cell])
    return table


def medians(values: Mapping[float, list[float]]) -> dict[float, float]:
    """Median over shapes for each sparsity."""
    return {sparsity: statistics.median(group) for sparsity, group in values.items()}


def break_even(speedup_at: Mapping[float, float]) -> float | None:
    """Lowest sparsity from which speed-ups stay at least 1, interpolated; None if the last is below 1.

    >>> break_even({0.5: 0.8, 0.7: 1.2, 0.9: 3.0})
    0.6
    """
    points = sorted(speedup_at.items(), reverse=True)
    if not points or points[0][1] < 1:
        return None
    for (above, fast), (below, slow) in itertools.pairwise(points):
        if slow < 1:
            return round(below + (above - below) * (1 - slow) / (fast - slow), 3)
    return points[-1][0]
