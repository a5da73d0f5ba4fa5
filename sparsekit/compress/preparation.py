"""From recipe, model folder and tables to a job."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from sparsekit.compress.data import Rows, read_rows
from sparsekit.compress.job import Job
from sparsekit.compress.labels import class_names, numbered
from sparsekit.compress.recipe import Recipe, needs_labels
from sparsekit.compress.tasks import TASKS


def _split(rows: Rows, part: float, seed: int) -> tuple[Rows, Rows | None]:
    """Rows to train on, and to test on where a part is wanted."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a shuffle, not a secret
    held = round(part * len(rows))
    if held in (0, len(rows)):
        return rows, None

    def chosen(numbers: list[int]) -> Rows:
        columns = (rows.texts, rows.pairs, rows.labels)
        return Rows(*([column[i] for i in numbers] if column else [] for column in columns))

    return chosen(order[held:]), chosen(order[:held])


def _tables(recipe: Recipe, data: Path, test: Path | None) -> tuple[Rows, Rows | None]:
    """Rows to train on and to test on; None where what a test needs is not there."""
    names = recipe.data
    label = "label" if recipe.task == "classification" and names.label is None else names.label
    columns = (names.text, names.pair, label)
    rows = read_rows(data, *columns, only_text=recipe.task == "embedding" or not needs_labels(recipe))
    if test is not None:
        return rows, read_rows(test, *columns)
    wanted = {"classification": rows.labels, "embedding": rows.pairs, "language": rows.texts}
    return _split(rows, names.test_part if wanted[recipe.task] else 0.0, recipe.seed)


def _classes(recipe: Recipe, model: Path, tables: list[Rows]) -> list[str]:
    from transformers import AutoConfig

    known = AutoConfig.from_pretrained(model, local_files_only=True).id2label
    names = [str(known[number]) for number in sorted(known)]
    return class_names(tables, names, anew=recipe.stages[0].name == "finetune")


def prepare(recipe: Recipe, model: Path, data: Path, out: Path, test: Path | None) -> Job:
    """The job of a recipe: model, tokenizer and batches.

    Raises:
        FileNotFoundError, ValueError: the model or the data do not fit the recipe.
    """
    if not (model / "config.json").is_file():
        raise FileNotFoundError(f"{model} is no model folder: it has no config.json")
    task = TASKS[recipe.task]
    torch.manual_seed(recipe.seed)  # a new head begins at random
    rows, test_rows = _tables(recipe, data, test)
    options: dict[str, Any] = {"anew": recipe.stages[0].name == "finetune"}
    if recipe.task == "classification":
        names = _classes(recipe, model, [rows, *([test_rows] if test_rows else [])])
        rows, test_rows = numbered(rows, names), numbered(test_rows, names) if test_rows else None
        options["classes"] = names
    loaded, tokenizer = task.load(model, **options)
    how = (recipe.data.batch_size, recipe.data.max_tokens)
    batches = task.batches(tokenizer, rows, *how)
    tests = None if test_rows is None else task.test_set(tokenizer, test_rows, *how)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Job(recipe, task, loaded.eval().to(device), tokenizer, batches, tests, out / "work")
