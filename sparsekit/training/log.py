"""The log of a training run: a JSON line for every step and evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sparsekit.io.atomic_file import write_atomically


class TrainLog:
    """Appends to a log.

    Args:
        path: the file, whose folder is created if missing; None to log nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, sparsity: float, entry: Mapping[str, float]) -> None:
        """Append an entry, with the model's sparsity."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({**entry, "sparsity": round(sparsity, 4)}) + "\n")

    def cut_after(self, step: int) -> None:
        """Drop the lines of later steps, which will be repeated, and an incomplete last line.

        Raises:
            ValueError: the file is not a log of training.
        """
        if self.path is None or not self.path.exists():
            return
        whole = [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        try:
            text = "".join(line for line in whole if json.loads(line)["step"] <= step)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is no log of train(), which would replace it; give another file") from error
        write_atomically(self.path, lambda temporary: temporary.write_text(text))
