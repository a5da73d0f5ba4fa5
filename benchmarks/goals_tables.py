"""Table of the speed goals for linear layers: reached speed-ups, and upper bounds."""

from __future__ import annotations

import statistics
from typing import Any

from results_tables import load, machine, percent, source, table

from sparsekit.bench.summary import Cell, by_sparsity, dense_times, groups, speedups

#: Target speed-ups over the best dense engine on one thread, median over the shapes: tokens -> sparsity.
_GOALS = {
    1: {0.5: 1.7, 0.7: 2.4, 0.8: 3.5, 0.9: 6.0, 0.95: 10.0},
    16: {0.5: 1.2, 0.7: 1.6, 0.8: 2.2, 0.9: 4.0, 0.95: 7.0},
    128: {0.5: 1.5, 0.7: 2.2, 0.8: 3.0, 0.9: 5.0, 0.95: 8.0},
    512: {0.5: 1.5, 0.7: 2.2, 0.8: 3.0, 0.9: 5.0, 0.95: 8.0},
}


def _bounds(stored: dict[str, Any], empty: str) -> dict[Cell, float]:
    """Upper bounds on speed-ups: products at peak FMA throughput, plus the measured call overhead.

    The overhead is that of a call with an all-zero weight: packing the input, starting every row of every block,
    storing.
    """
    peak = next(one["fma_gflops"] for one in stored["ceilings"] if one["threads"] == 1)
    rest = {group: members[0]["us"] for group, members in groups(load(empty)["rows"]).items()}
    found = {}
    for group, members in groups(stored["rows"]).items():
        for row in members:
            if row["engine"] == "sparsekit" and group in rest:
                products = 2e-3 * row["nnz"] * group.batch / peak
                found[Cell(*group, row["sparsity"])] = min(dense_times(members)) / (rest[group] + products)
    return found


def goals_block(result: str, empty: str) -> str:
    """Goals reached on one thread, and the upper bound for missed goals."""
    stored = load(result)
    reached, bounds = by_sparsity(speedups(stored["rows"])), by_sparsity(_bounds(stored, empty))
    lines = []
    for batch, goals in _GOALS.items():
        cells = []
        for sparsity, goal in goals.items():
            got = statistics.median(reached[1, batch][sparsity])
            missed = f", {statistics.median(bounds[1, batch][sparsity]):.1f} at most" if got < goal else ""
            cells.append(f"{got:.2f} of {goal:g}{missed}")
        lines.append([batch, *cells])
    return (
        table(["tokens", *percent(_GOALS[1])], lines)
        + "\n\nSpeed-up over the best dense engine, median over the shapes, one thread, of the goal. At most: with "
        "products at the peak of fused multiply-adds, the rest of a call as measured with an empty weight: packing, "
        f"storing, starting and ending every row of every column block. {machine(stored['environment'])} "
        f"{source(result, empty)}"
    )
