"""Run a recipe: from a dense model folder and data to a folder with the compressed model, its recipe and its scores."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsekit.checkpoint import save
from sparsekit.compress.checks import check_stages
from sparsekit.compress.data import Rows, read_rows
from sparsekit.compress.job import Job
from sparsekit.compress.recipe import Recipe, read_recipe
from sparsekit.compress.stages import STAGES
from sparsekit.compress.tasks import TASKS
from sparsekit.environment import environment
from sparsekit.files import write_json
from sparsekit.pruning import finalize
from sparsekit.training.processes import join_group, process_number


def _label_numbers(rows: list[Rows], known: dict[str, int]) -> tuple[list[Rows], list[str]]:
    """The tables with whole numbers as labels (-100: none), and the labels' names in that order.

    Raises:
        ValueError: there are fewer than two labels.
    """
    found = {str(label) for table in rows for label in table.labels if label is not None}
    names = sorted(known, key=known.__getitem__) if found <= set(known) else sorted(found)
    if len(found) < 2:
        raise ValueError(f"classification needs two labels at least in its data, got {sorted(found)}")
    numbers = {name: number for number, name in enumerate(names)} | {"None": -100}
    return [replace(table, labels=[numbers[str(label)] for label in table.labels]) for table in rows], names


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
    names = recipe.data
    label = "label" if recipe.task == "classification" and names.label is None else names.label
    columns = (names.text, names.pair, label)
    rows = read_rows(data, *columns, only_text=recipe.task == "embedding")
    if test is not None:
        return rows, read_rows(test, *columns)
    part = 0.0 if recipe.task == "embedding" and not rows.pairs else names.test_part
    return _split(rows, part, recipe.seed)


def _job(recipe: Recipe, model: Path, data: Path, out: Path, test: Path | None) -> Job:
    if not (model / "config.json").is_file():
        raise FileNotFoundError(f"{model} is no model folder: it has no config.json")
    task = TASKS[recipe.task]
    torch.manual_seed(recipe.seed)  # a new head begins at random
    train_rows, test_rows = _tables(recipe, data, test)
    options: dict[str, Any] = {}
    if recipe.task == "classification":
        from transformers import AutoConfig

        known = AutoConfig.from_pretrained(model, local_files_only=True).label2id or {}
        tables, names = _label_numbers([train_rows, *([test_rows] if test_rows else [])], known)
        train_rows, test_rows = tables[0], tables[1] if test_rows else None
        options = {"num_labels": len(names), "id2label": dict(enumerate(names)), "ignore_mismatched_sizes": True}
    loaded, tokenizer = task.load(model, **options)
    settings = recipe.data
    batches = task.batches(tokenizer, train_rows, settings.batch_size, settings.max_tokens)
    tests = None if test_rows is None else task.test_set(tokenizer, test_rows, settings.batch_size, settings.max_tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Job(recipe, task, loaded.eval().to(device), tokenizer, batches, tests, out / "work")


def _run_stages(job: Job) -> None:
    for number, stage in enumerate(job.recipe.stages, 1):
        job.stage = f"{number}-{stage.name}"
        start = time.perf_counter()
        found = STAGES[stage.name](job, stage.settings)
        job.rows.append({"stage": job.stage, **found, "seconds": round(time.perf_counter() - start, 1)})


def compress(
    recipe: Recipe | Path | str, model: Path | str, data: Path | str, out: Path | str, test: Path | str | None = None
) -> dict[str, Any]:
    """Compress a model as a recipe says.

    A run that was stopped goes on from its last checkpoint when it is started again with the same arguments.

    Args:
        recipe: a recipe, or its YAML file.
        model: a transformers folder.
        data: a table of texts to train on: .jsonl, .json, .csv, .parquet, .txt or a folder of `datasets`.
        out: folder for `model`, with the recipe in it, `report.json`, and `work` with checkpoints and the teacher's
            answers. The model opens with transformers alone unless layers were converted or neurons removed: then with
            `sparsekit.load`.
        test: a table to score on; None: a part of `data`, as the recipe's `data.test_part` says.

    Returns:
        What `report.json` holds: what every stage did, and the scores at the end.

    Raises:
        FileNotFoundError, ValueError: before any training where recipe, model or data do not fit.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    out = Path(out)
    join_group()
    job = _job(recipe, Path(model), Path(data), out, None if test is None else Path(test))
    check_stages(job)
    job.work.mkdir(parents=True, exist_ok=True)
    _run_stages(job)
    finalize(job.model.cpu())
    report = {
        "task": recipe.task,
        "seed": recipe.seed,
        "train_batches": len(job.train),
        "stages": job.rows,
        "scores": job.scores(),
        "environment": environment(),
    }
    if process_number() == 0:
        plain = not any(stage.name in ("convert", "prune_neurons", "prune_heads") for stage in recipe.stages)
        save(job.model, out / "model", tokenizer=job.tokenizer, recipe=recipe.to_yaml(), dense=plain)
        write_json(out / "report.json", report)
    return report


def score(model: Path | str, data: Path | str, task: str) -> dict[str, float]:
    """Score a model on a table.

    Args:
        model: a transformers folder, or one of `sparsekit.save`.
        data: texts with the columns "text" and "label" (classification), "text" and "pair" and where known "label"
            (embedding: how alike they are), or "text" (language).
        task: "classification", "embedding" or "language".

    Raises:
        FileNotFoundError, ValueError: as `compress`.
    """
    columns = {"pair": "pair"} if task == "embedding" else {}
    recipe = Recipe.model_validate({"task": task, "data": columns, "stages": ["evaluate"]})
    return _job(recipe, Path(model), Path(data), Path(), Path(data)).scores()
