"""Prepare a job from a recipe, a model folder and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.recipes.data.labels import class_names, numbered
from sparsekit.recipes.data.splits import Splits
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.job import Job
from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.tasks import TASKS


def _classes(recipe: Recipe, model: Path, tables: list[Rows]) -> list[str]:
    from transformers import AutoConfig

    known = from_folder(AutoConfig.from_pretrained, model).id2label
    names = [str(known[number]) for number in sorted(known)]
    return class_names(tables, names, new_head=recipe.new_head)


def prepare(recipe: Recipe, model: Path, splits: Splits, out: Path) -> Job:
    """The job of a recipe: model, tokenizer and batches.

    Args:
        recipe: the recipe.
        model: folder of the model.
        splits: rows of the tables.
        out: folder for the compressed model.

    Raises:
        FileNotFoundError, ValueError: the model or the data do not fit the recipe.
    """
    check_model_folder(model)
    task = TASKS[recipe.task]
    torch.manual_seed(recipe.seed)  # for the weights of a new head
    options: dict[str, Any] = {"new_head": recipe.new_head}
    if recipe.task == "classification":
        names = _classes(recipe, model, splits.all)
        splits = splits.changed(lambda rows: numbered(rows, names))
        options["classes"] = names
    loaded, tokenizer = task.load(model, **options)
    sizes = (recipe.data.batch_size, recipe.data.max_tokens)

    def given() -> Any:
        torch.manual_seed(recipe.seed)
        return task.load(model, **options)[0].eval()

    def test_set(rows: Rows | None) -> Any:
        return None if rows is None else task.test_set(tokenizer, rows, *sizes)

    return Job(
        recipe,
        task,
        loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu"),
        tokenizer,
        train=[] if splits.train is None else task.batches(tokenizer, splits.train, *sizes),
        test=test_set(splits.test),
        validation=test_set(splits.validation),
        out=out,
        given=given,
    )
