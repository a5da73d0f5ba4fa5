"""Split tables into rows for training, for validation while training, and for testing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparsekit.recipes.data.tables import Rows, read_rows
from sparsekit.recipes.recipe import Recipe


@dataclass(frozen=True)
class Splits:
    """Rows of each split; None for a split that is empty or cannot be scored."""

    train: Rows | None
    validation: Rows | None
    test: Rows | None

    @property
    def all(self) -> list[Rows]:
        """All splits that exist."""
        return [rows for rows in (self.train, self.validation, self.test) if rows is not None]

    def changed(self, change: Callable[[Rows], Rows]) -> Splits:
        """Apply a function to every split."""
        parts = (self.train, self.validation, self.test)
        return Splits(*(None if rows is None else change(rows) for rows in parts))


def split_rows(rows: Rows, part: float, seed: int) -> tuple[Rows, Rows | None]:
    """The remaining rows, and a random fraction `part` of them; None if that would be no rows or all."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a shuffle, not a secret
    count = round(part * len(rows))
    if count in (0, len(rows)):
        return rows, None

    def chosen(numbers: list[int]) -> Rows:
        columns = (rows.texts, rows.pairs, rows.labels)
        return Rows(*([column[i] for i in numbers] if column else [] for column in columns))

    return chosen(order[count:]), chosen(order[:count])


def read_splits(recipe: Recipe, data: Path, test: Path | None, validation: Path | None) -> Splits:
    """Read the tables of a run; a split without a file is a fraction of `data`, set by the recipe.

    The test split is drawn first, so that it does not depend on the validation split, which is drawn only if a stage
    scores the model while it trains.

    Raises:
        FileNotFoundError, ValueError: as `read_rows`.
    """
    names, columns = recipe.data, recipe.columns
    rows = read_rows(data, *columns, only_text=recipe.task == "embedding" or not recipe.needs_labels)
    can_score = {"classification": rows.labels, "embedding": rows.pairs, "language": rows.texts}[recipe.task]

    def split_off(rows: Rows, file: Path | None, part: float) -> tuple[Rows, Rows | None]:
        if file is not None:
            return rows, read_rows(file, *columns)
        return split_rows(rows, part if can_score else 0.0, recipe.seed)

    rows, tests = split_off(rows, test, names.test_part)
    validations = None
    if recipe.needs_validation:
        rows, validations = split_off(rows, validation, names.validation_part)
    return Splits(rows, validations, tests)
