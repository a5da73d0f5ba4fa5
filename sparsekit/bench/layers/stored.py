"""Results file of a layer benchmark, written after every group, so that a stopped run resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparsekit.bench.layers.benchmark import Grid, Row
from sparsekit.bench.layers.ceilings import Ceilings
from sparsekit.bench.summary import Group, groups
from sparsekit.io.atomic_file import write_json
from sparsekit.runtime.environment import environment


class Store:
    """Rows of one run, in memory and, with a path, in a file.

    Args:
        path: the JSON file, or None.
        grid: what is measured.
        weights: where the weights come from.
    """

    def __init__(self, path: Path | None, grid: Grid, weights: str) -> None:
        self.path = path
        self.value: dict[str, Any] = {
            "environment": environment(),
            "weights": weights,
            "grid": asdict(grid),
            "finished": False,
            "ceilings": [],
            "rows": [],
        }

    def known(self) -> dict[Group, list[Row]]:
        """Groups in the file, if it is from an unfinished run of the same grid in the same environment."""
        if self.path is None or not self.path.is_file():
            return {}
        try:
            old = json.loads(self.path.read_text())
            same = all(old[name] == _plain(self.value[name]) for name in ("environment", "weights", "grid", "finished"))
            return {key: [Row(**row) for row in rows] for key, rows in groups(old["rows"]).items()} if same else {}
        except (ValueError, KeyError, TypeError):
            return {}  # not a results file; it is replaced after the first group

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of one group."""
        self.value["rows"] += [asdict(row) for row in rows]
        self._write()

    def finish(self, ceilings: Sequence[Ceilings]) -> dict[str, Any]:
        """Add the ceilings; return all results as JSON types."""
        self.value["ceilings"] = [asdict(one) for one in ceilings]
        self.value["finished"] = True
        self._write()
        return self.value

    def _write(self) -> None:
        if self.path is not None:
            write_json(self.path, self.value)


def _plain(value: Any) -> Any:
    """Convert tuples to lists, as a JSON round trip does."""
    return json.loads(json.dumps(value))
