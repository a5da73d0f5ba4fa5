"""Compare two JSON files that `sparsekit bench --json` wrote, cell by cell.

    .venv/bin/python benchmarks/compare.py before.json after.json

Absolute times of different runs do not compare on a shared machine, so the figure is the speed-up over dense torch,
which each run measured interleaved with the sparse kernels. A change smaller than the spread of a noisy cell is marked.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

KEY = ("out_features", "in_features", "sparsity", "batch", "threads", "layout")


def load(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Cells of a file by what identifies them."""
    try:
        cells = json.loads(path.read_text())["cells"]
        return {tuple(cell[name] for name in KEY): cell for cell in cells}
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{path}: expected a file of `sparsekit bench --json`, got {error!r}")


def main(arguments: list[str]) -> None:
    """Print one line a cell that both files hold, and the median change."""
    if len(arguments) != 2:
        sys.exit(__doc__)
    before, after = (load(Path(name)) for name in arguments)
    common = [key for key in before if key in after]
    if not common:
        sys.exit("the two files have no cell in common")
    changes = []
    print(
        f"{'out x in':>13} {'sparsity':>8} {'batch':>5} {'threads':>7} {'layout':>6} {'before':>7} {'after':>7}  change"
    )
    for key in common:
        old, new = before[key]["speedup"], after[key]["speedup"]
        changes.append(new / old)
        noisy = " (noisy)" if before[key]["noisy"] or after[key]["noisy"] else ""
        rows, columns, sparsity, batch, threads, layout = key
        print(
            f"{rows:>6} x {columns:<4} {sparsity:>8.0%} {batch:>5} {threads:>7} {layout:>6}"
            f" {old:>6.2f}x {new:>6.2f}x {new / old - 1:>+7.1%}{noisy}"
        )
    print(f"median change over {len(changes)} cells: {statistics.median(changes) - 1:+.1%}")
    missing = len(before) + len(after) - 2 * len(common)
    if missing:
        print(f"{missing} cells are in only one of the files")


if __name__ == "__main__":
    main(sys.argv[1:])
