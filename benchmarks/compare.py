"""Compare two JSON files that `sparsekit bench layers --json` wrote, cell by cell.

    .venv/bin/python benchmarks/compare.py before.json after.json

Absolute times of different runs do not compare on a shared machine, so the figure is the speed-up over the
best dense engine, which each run measured interleaved with the sparse kernels.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from sparsekit.bench.summary import Cell, speedups


def load(path: Path) -> dict[Cell, float]:
    """Speed-ups of a file."""
    try:
        return speedups(json.loads(path.read_text())["rows"])
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{path}: expected a file of `sparsekit bench layers --json`, got {error!r}")


def main(arguments: list[str]) -> None:
    """Print one line a cell that both files hold, and the median change."""
    if len(arguments) != 2:
        sys.exit(__doc__)
    before, after = (load(Path(name)) for name in arguments)
    common = [key for key in before if key in after]
    if not common:
        sys.exit("the two files have no cell in common")
    changes = []
    print(f"{'out x in':>13} {'sparsity':>8} {'batch':>5} {'threads':>7} {'before':>7} {'after':>7}  change")
    for cell in common:
        old, new = before[cell], after[cell]
        changes.append(new / old)
        print(
            f"{cell.out_features:>6} x {cell.in_features:<4} {cell.sparsity:>8.0%} {cell.batch:>5} {cell.threads:>7}"
            f" {old:>6.2f}x {new:>6.2f}x {new / old - 1:>+7.1%}"
        )
    print(f"median change over {len(changes)} cells: {statistics.median(changes) - 1:+.1%}")
    missing = len(before) + len(after) - 2 * len(common)
    if missing:
        print(f"{missing} cells are in only one of the files")


if __name__ == "__main__":
    main(sys.argv[1:])
