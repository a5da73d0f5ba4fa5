"""Run a recipe: from a dense model folder and data to a folder with the compressed model, its recipe and its scores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sparsekit.checkpoint import save
from sparsekit.compress.checks import check_stages
from sparsekit.compress.data import read_table
from sparsekit.compress.identity import claim
from sparsekit.compress.job import Job
from sparsekit.compress.learning import log_of
from sparsekit.compress.nearness import nearness
from sparsekit.compress.pictures import draw_stage
from sparsekit.compress.preparation import prepare
from sparsekit.compress.recipe import Recipe
from sparsekit.compress.recipe_file import make_recipe, read_recipe
from sparsekit.compress.stages import STAGES
from sparsekit.environment import environment
from sparsekit.files import write_json
from sparsekit.nn import SparseLinear
from sparsekit.pruning import finalize
from sparsekit.training.processes import first_alone, join_group, process_number


def _run_stages(job: Job) -> None:
    for number, stage in enumerate(job.recipe.stages, 1):
        job.stage = f"{number}-{stage.name}"
        start = time.perf_counter()
        found = STAGES[stage.name](job, stage.settings)
        found |= {} if stage.evaluate is not None else nearness(job)
        row = {"stage": job.stage, **found, "seconds": round(time.perf_counter() - start, 1)}
        log = log_of(job)
        picture = draw_stage(log, job.work.parent) if process_number() == 0 and log.exists() else None
        job.rows.append(row if picture is None else {**row, "picture": picture})


def _opens_anywhere(model: Any) -> bool:
    """Whether transformers alone can open the model: nothing is sparse, and its widths are what its config says."""
    sparse = any(isinstance(module, SparseLinear) for module in model.modules())
    return not sparse and not getattr(model.config, "sparsekit_widths", None)


def compress(
    recipe: Recipe | Path | str,
    model: Path | str,
    data: Path | str,
    out: Path | str,
    test: Path | str | None = None,
    validation: Path | str | None = None,
) -> dict[str, Any]:
    """Compress a model as a recipe says.

    A run that was stopped goes on from its last checkpoint when it is started again with the same arguments. What is
    scored as a stage trains, and so chooses its weights by `patience`, is the validation data; what is reported is
    scored on the test data.

    Args:
        recipe: a recipe, or its YAML file.
        model: a transformers folder.
        data: a table of texts to train on: .jsonl, .json, .csv, .parquet, .txt or a folder of `datasets`.
        out: folder for `model`, with the recipe in it, `report.json`, a picture of each stage that trained, and `work`
            with checkpoints, logs and the teacher's answers. The model opens with transformers alone unless layers were
            converted or neurons removed: then with `sparsekit.load`.
        test: a table to score on; None: a part of `data`, as the recipe's `data.test_part` says.
        validation: a table to score on while training, where a stage has `evaluate_every`; None: a part of what is left
            of `data`, as the recipe's `data.validation_part` says.

    Returns:
        What `report.json` holds: what every stage did, and the scores at the end.

    Raises:
        FileNotFoundError, ValueError: before any training where recipe, model or data do not fit.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    model, data, out = Path(model), Path(data), Path(out)
    test, validation = (None if path is None else Path(path) for path in (test, validation))
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; expected a folder to write to, or a name that is free")
    join_group()
    job = prepare(recipe, model, data, out, test, validation)
    check_stages(job)
    first_alone(lambda: claim(job.work, recipe, model=model, data=data, test=test, validation=validation))
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
        save(
            job.model, out / "model", tokenizer=job.tokenizer, recipe=recipe.to_yaml(), dense=_opens_anywhere(job.model)
        )
        write_json(out / "report.json", report)
    return report


def evaluate(model: Path | str, data: Path | str, task: str) -> dict[str, float]:
    """Score a model on a table.

    Args:
        model: a transformers folder, or one of `sparsekit.save`.
        data: texts with the columns "text" and "label" (classification), "text" and "pair" and where known "label"
            (embedding: how alike they are), or "text" (language).
        task: "classification", "embedding" or "language".

    Raises:
        FileNotFoundError, ValueError: as `compress`.
    """
    columns: dict[str, str] = {}
    if task == "embedding":
        columns = {name: name for name in ("pair", "label") if name in read_table(Path(data))}
    recipe = make_recipe({"task": task, "data": columns, "stages": ["evaluate"]})
    return prepare(recipe, Path(model), Path(data), Path(), Path(data)).scores()
