"""What a search is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsekit.choose.targets import Targets
from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.yaml_file import make_recipe

#: Tasks whose models the search compresses.
TASKS = ("classification", "embedding")


@dataclass(frozen=True)
class Request:
    """What is to be compressed, and how long the search may take.

    Attributes:
        model: folder of the dense model.
        data: table of texts to learn from and to select by.
        out: folder for models, recipes and the report.
        task: of `TASKS`.
        test: table that the search does not see; None to report the scores that candidates are selected by.
        settings: of the recipes' data: names of columns, lengths.
        minutes: that the search may take.
        threads: of every engine.
        targets: that the recommended point keeps to.
        seed: of splits, search and training.
    """

    model: Path
    data: Path
    out: Path
    task: str
    test: Path | None
    settings: Mapping[str, Any]
    minutes: float
    threads: int
    targets: Targets
    seed: int

    def recipe(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe that only evaluates, with these settings of the data."""
        return make_recipe({"task": self.task, "seed": self.seed, "data": dict(settings), "stages": ["evaluate"]})
