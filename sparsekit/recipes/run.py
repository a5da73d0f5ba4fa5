"""Run a recipe: read a dense model and data, write a folder with the compressed model, its recipe and its scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from sparsekit.checkpoint import save
from sparsekit.checkpoint.card import write_section
from sparsekit.checkpoint.readback import check_plain
from sparsekit.checkpoint.transformers.foreign import check_model_folder
from sparsekit.checkpoint.transformers.models import from_config
from sparsekit.folder.layout import is_written_with_tokenizer
from sparsekit.introspect.model_configs import recorded_shapes
from sparsekit.io.atomic_file import write_json
from sparsekit.io.destination import checked_destination
from sparsekit.nn import Compressed
from sparsekit.progress import tell
from sparsekit.pruning import finalize
from sparsekit.recipes.checks import check_stages, check_tokens
from sparsekit.recipes.data.splits import Splits, read_splits
from sparsekit.recipes.data.tables import read_table, rows_of
from sparsekit.recipes.job import Job
from sparsekit.recipes.preparation import prepare
from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.report.comparison import compare_with_dense, verify_inputs
from sparsekit.recipes.report.fidelity import fidelity_to_dense
from sparsekit.recipes.report.page import RUN_REPORT, Given, write_run_page
from sparsekit.recipes.report.plots import draw_stage
from sparsekit.recipes.report.text import comparison_notes, comparison_table, stage_line
from sparsekit.recipes.report.time_left import seconds_left
from sparsekit.recipes.resuming.disk_space import check_space
from sparsekit.recipes.resuming.finished_stages import progress_text, restore, store
from sparsekit.recipes.resuming.run_identity import claim
from sparsekit.recipes.yaml_file import make_recipe, read_recipe
from sparsekit.runtime.environment import environment
from sparsekit.training.processes import first_alone, join_group, process_number


def _run_stages(job: Job) -> None:
    names, finished = job.recipe.stage_names, len(job.rows)
    if finished and process_number() == 0:
        tell(f"finished before: {', '.join(names[:finished])}")
    for name, stage in list(zip(names, job.recipe.stages, strict=True))[finished:]:
        job.stage = name
        torch.manual_seed(job.recipe.seed)  # regardless of what ran before in this process
        start = time.perf_counter()
        changed = stage.settings.changes_model
        found = stage.kind.run(job, stage.settings) | (fidelity_to_dense(job) if changed else {})
        row = {"stage": name, **found, "seconds": round(time.perf_counter() - start, 1)}
        plot = draw_stage(job.log, job.out) if process_number() == 0 and job.log.exists() else None
        job.rows.append(row if plot is None else {**row, "plot": plot})
        first_alone(partial(store, job, changed=changed))
        if process_number() == 0:
            tell(stage_line(row, seconds_left(job)))


def _opens_anywhere(model: Any) -> bool:
    """Whether transformers alone can open the model: nothing is sparse, and its config fully describes it."""
    sparse = any(isinstance(module, Compressed) for module in model.modules())
    if sparse or recorded_shapes(model.config):
        return False
    try:
        check_plain(model, from_config(model))
    except ValueError:
        return False
    return True


def compress(
    model: Path | str,
    recipe: Recipe | Path | str,
    data: Path | str,
    out: Path | str,
    *,
    test: Path | str | None = None,
    validation: Path | str | None = None,
) -> dict[str, Any]:
    """Compress a model by a recipe.

    Every finished stage is stored, and training writes a checkpoint every two minutes: a stopped run resumes from there
    when it is started again with the same arguments, and its `KeyboardInterrupt` has a note that says what is kept.
    Free disk space is checked first. `patience` selects weights by their score on the validation data; the reported
    scores are computed on the test data.

    Args:
        model: a transformers folder.
        recipe: a recipe, or its YAML file.
        data: a table of texts to train on: .jsonl, .json, .csv, .parquet, .txt or a folder of `datasets`.
        out: folder for the compressed model, with its tokenizer, `recipe.yaml`, `report.json`, the page `report.html`
            and a plot of each stage that trained. It is written atomically at the end of the run and replaces an older
            one. It opens with transformers alone unless layers were converted or neurons removed; then use
            `sparsekit.load`. `out/work` holds the model after each stage, logs, and while a stage runs its checkpoints
            and the teacher's outputs; it may be deleted after the run.
        test: a table to score on; None: a fraction of `data`, set by `data.test_part` in the recipe.
        validation: a table to score on while training, if a stage sets `evaluate_every`; None: a fraction of the
            remaining `data`, set by `data.validation_part`.

    Returns:
        The content of `report.json`: a report of every stage, the final scores with intervals, and a "comparison" of
        the dense model with the compressed one: quality, speed on this machine, size.

    Raises:
        FileNotFoundError, ValueError: recipe, model, data or `out` do not fit; raised before any training.
        OSError: the disk has too little space, or `out` cannot be written; also raised before any training.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    model, data, out = Path(model), Path(data), Path(out)
    test, validation = (None if path is None else Path(path) for path in (test, validation))
    inputs = {"model": model, "data": data, "test": test, "validation": validation, **_teachers(recipe)}
    _check_out(out, inputs)
    join_group()
    try:
        check_model_folder(model)
        job = prepare(recipe, model, read_splits(recipe, data, test, validation), out)
        return _compress(job, Given(model, data, test, validation), inputs)
    except KeyboardInterrupt as stop:
        stop.add_note(progress_text(out / "work", recipe.stage_names))
        raise


def _check_out(out: Path, inputs: Mapping[str, Path | None]) -> None:
    target = checked_destination(out, is_written_with_tokenizer)
    for name, path in inputs.items():
        if path is not None and path.resolve() == target:
            raise ValueError(f"{out} is the {name}, which the compressed model would replace; choose another folder")


def _teachers(recipe: Recipe) -> dict[str, Path | None]:
    """Folders of other teachers, by role."""
    found = {n: getattr(stage.settings, "teacher", None) for n, stage in enumerate(recipe.stages, 1)}
    return {f"teacher of stage {n}": teacher for n, teacher in found.items() if teacher}


def _compress(job: Job, given: Given, inputs: Mapping[str, Path | None]) -> dict[str, Any]:
    check_stages(job)
    first_alone(lambda: check_space(job))
    first_alone(lambda: claim(job.work, job.recipe, inputs))
    restore(job)
    _run_stages(job)
    finalize(job.model.cpu())
    predictions = job.predictions()
    scores = job.scores_of(predictions)
    report = {
        "task": job.recipe.task,
        "seed": job.recipe.seed,
        "train_batches": len(job.train),
        "stages": job.rows,
        "scores": {name: value for name, value in scores.items() if name != "intervals"},
        "intervals": scores.get("intervals", {}),
    }
    first_alone(partial(_write, job, predictions, given, report))
    return report


def _write(job: Job, predictions: NDArray[Any] | None, given: Given, report: dict[str, Any]) -> None:
    """Save the model, compare it with the dense one, write the card, `report.json` and its page; only process 0."""
    if process_number() != 0:
        return
    dense = _opens_anywhere(job.model)
    save(
        job.model,
        job.out,
        tokenizer=job.tokenizer,
        recipe=job.recipe.to_yaml(),
        dense=dense,
        verify_inputs=None if dense else verify_inputs(job),
    )
    report["comparison"] = compare_with_dense(job, predictions, given.model)
    report["environment"] = environment()
    write_section(job.out, type(job.model).__name__, comparison_table(report["comparison"]), comparison_notes(report))
    write_json(job.out / RUN_REPORT, report)
    write_run_page(job, report, given)


def evaluate(model: Path | str, data: Path | str, task: str) -> dict[str, float]:
    """Score a model on a table.

    Args:
        model: a transformers folder, or one of `sparsekit.save`.
        data: a table with the columns "text" and "label" (classification), "text", "pair" and optionally "label", their
            similarity (embedding), or "text" (language).
        task: "classification", "embedding" or "language".

    Raises:
        FileNotFoundError, ValueError: as `compress`.
    """
    scores = scoring_job(Path(model), Path(data), task).scores()
    return {name: value for name, value in scores.items() if name != "intervals"}


def scoring_job(model: Path, data: Path, task: str, max_tokens: int | None = None) -> Job:
    """Job that scores a model on a table.

    Args:
        model: as in `evaluate`, like the next two.
        data: likewise.
        task: likewise.
        max_tokens: longer texts are truncated; None: at what recipes do without this setting.

    Raises:
        FileNotFoundError, ValueError: as `compress`.
    """
    lengths = {} if max_tokens is None else {"max_tokens": max_tokens}
    recipe = make_recipe({"task": task, "data": lengths, "stages": ["evaluate"]})
    check_model_folder(model)
    table = read_table(data)
    pair, label = (name if name in table and task == "embedding" else None for name in ("pair", "label"))
    rows = rows_of(table, data, "text", pair, "label" if task == "classification" else label)
    job = prepare(recipe, model, Splits(None, None, rows), data.parent)
    if max_tokens is not None:
        check_tokens(job)
    return job
