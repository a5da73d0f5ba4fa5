"""The user's texts, for the search: to learn from, and to select by; the test data stay unseen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsekit.io.atomic_file import write_json_lines
from sparsekit.recipes.data.splits import read_splits, split_rows
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.yaml_file import make_recipe

#: Part of the data that candidates are selected by, and the most texts of it.
_SELECTION, _MOST = 0.15, 2000
#: Names of columns in the files that the search writes.
_TEXT, _PAIR, _LABEL = "text", "pair", "label"


@dataclass(frozen=True)
class Texts:
    """Files of the search.

    Attributes:
        train: the texts that candidates learn from, JSON lines.
        selection: those that they are selected by.
        columns: settings of a recipe's data that read these files.
        test: `selection` for recipes; None where it has no pairs, which recipes score encoders by.
    """

    train: Path
    selection: Path
    columns: dict[str, Any]
    test: Path | None


def _lines(rows: Rows) -> list[dict[str, Any]]:
    columns = {_TEXT: rows.texts, _PAIR: rows.pairs, _LABEL: rows.labels}
    there = {name: column for name, column in columns.items() if column}
    return [dict(zip(there, values, strict=True)) for values in zip(*there.values(), strict=True)]


def split_texts(data: Path, task: str, settings: Mapping[str, Any], seed: int, work: Path) -> Texts:
    """Split the user's table, and write both parts.

    Args:
        data: the table.
        task: of the recipes.
        settings: of the recipes' data: names of columns, lengths.
        seed: of the split.
        work: folder for the files, which is there.

    Raises:
        FileNotFoundError, ValueError: as `read_splits`; also when there is too little to select by.
    """
    part = {**settings, "test_part": _SELECTION}
    recipe: Recipe = make_recipe({"task": task, "seed": seed, "data": part, "stages": ["evaluate"]})
    splits = read_splits(recipe, data, None, None)
    learned, kept = splits.train, splits.test
    by_pairs = recipe.data.pair is not None
    if learned is not None and task == "embedding" and not by_pairs:
        learned, kept = split_rows(learned, _SELECTION, seed)
    if learned is None or kept is None:
        needed = "labels and " if task == "classification" else f"a column {recipe.data.pair!r} and " * by_pairs
        raise ValueError(f"{data} must have {needed}more than a few rows, to select candidates by")
    if len(kept) > _MOST:
        kept = Rows(kept.texts[:_MOST], kept.pairs[:_MOST], kept.labels[:_MOST])
    columns = {_PAIR: _PAIR} if kept.pairs else {}
    columns |= {_LABEL: _LABEL} if kept.labels else {}
    sizes = {name: settings[name] for name in ("max_tokens", "batch_size") if name in settings}
    train = write_json_lines(work / "train.jsonl", _lines(learned))
    selection = write_json_lines(work / "selection.jsonl", _lines(kept))
    test = None if task == "embedding" and not kept.pairs else selection
    return Texts(train, selection, {**columns, **sizes}, test)
