"""From recipe, model folder and tables to a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.recipes.data.labels import class_names, numbered
from sparsekit.recipes.data.splits import read_splits
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.job import Job
from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.tasks import TASKS


def _classes(recipe: Recipe, model: Path, tables: list[Rows]) -> list[str]:
    from transformers import AutoConfig

    known = from_folder(AutoConfig.from_pretrained, model).id2label
    names = [str(known[number]) for number in sorted(known)]
    return class_names(tables, names, new_head=recipe.new_head)


def prepare(
    recipe: Recipe, model: Path, data: Path, out: Path, test: Path | None = None, validation: Path | None = None
) -> Job:
    """The job of a recipe: model, tokenizer and batches.

    Raises:
        FileNotFoundError, ValueError: the model or the data do not fit the recipe.
    """
    check_model_folder(model)
    task = TASKS[recipe.task]
    torch.manual_seed(recipe.seed)  # a new head begins at random
    splits = read_splits(recipe, data, test, validation)
    options: dict[str, Any] = {"new_head": recipe.new_head}
    if recipe.task == "classification":
        names = _classes(recipe, model, splits.all)
        splits = splits.changed(lambda rows: numbered(rows, names))
        options["classes"] = names
    loaded, tokenizer = task.load(model, **options)

    def given() -> Any:
        torch.manual_seed(recipe.seed)
        return task.load(model, **options)[0].eval()

    how = (recipe.data.batch_size, recipe.data.max_tokens)
    validation_set, test_set = (
        None if rows is None else task.test_set(tokenizer, rows, *how) for rows in (splits.validation, splits.test)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Job(
        recipe,
        task,
        loaded.eval().to(device),
        tokenizer,
        task.batches(tokenizer, splits.train, *how),
        test_set,
        validation_set,
        out,
        given,
    )
