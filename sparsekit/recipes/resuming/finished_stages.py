"""Finished stages on disk: a stopped run resumes after the last one.

work/stages.json      reports of the stages, and the number of stages before the dense model
work/1-prune          the model after stage 1, as written by `sparsekit.save`; missing if the stage did not change it
work/1-prune/masks.safetensors    its masks, and the weights under them
"""

from __future__ import annotations

import copy
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sparsekit.checkpoint import load, save
from sparsekit.io.atomic_file import write_json
from sparsekit.pruning import finalize
from sparsekit.recipes.job import Job
from sparsekit.training.checkpoint import load_model_state, read_progress, write_tensors
from sparsekit.training.processes import process_number

_STAGES, _MASKS = "stages.json", "masks.safetensors"
_MASKED = ".parametrizations."


def _read(work: Path) -> dict[str, Any]:
    path = work / _STAGES
    if not path.exists():
        return {"rows": [], "dense_after": None}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete {work} to start anew") from error
    return found


def count_finished(work: Path) -> int:
    """Number of finished stages of a run."""
    return len(_read(work)["rows"])


def _write_model(job: Job, folder: Path) -> None:
    masked = {name: tensor for name, tensor in job.model.state_dict().items() if _MASKED in name}
    masks = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in masked.items()}
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was stopped while storing
    save(finalize(copy.deepcopy(job.model).cpu()), folder, tokenizer=job.tokenizer)
    if masks:
        write_tensors(folder / _MASKS, masks)


def _read_model(folder: Path) -> Any:
    model: Any = load(folder)
    if (folder / _MASKS).exists():
        masked = load_file(folder / _MASKS)
        parts = [name.partition(_MASKED) for name in masked]
        below = {f"{layer}.{rest.partition('.')[0]}" for layer, _, rest in parts}
        plain = {name: one for name, one in model.state_dict().items() if name not in below}
        load_model_state(model, {**plain, **masked})
    return model


def store(job: Job, *, changed: bool) -> None:
    """Store a finished stage and delete its temporary files. Only process 0 writes.

    The run continues with the model as read back from disk, so that a resumed run is bit-identical.

    Args:
        job: the job; its last row is the report of the stage.
        changed: whether the stage may have changed the model.
    """
    if process_number() == 0:
        _write(job, changed)
    if changed:
        job.model = _model_after(job, len(job.rows))


def _write(job: Job, changed: bool) -> None:
    if changed:
        _write_model(job, job.work / job.stage)
    write_json(job.work / _STAGES, {"rows": job.rows, "dense_after": job.dense_after})
    log = job.log
    for name in (f"{log.stem}.safetensors", f"{log.stem}-best.safetensors"):
        log.with_name(name).unlink(missing_ok=True)
    shutil.rmtree(job.teacher_cache, ignore_errors=True)


def _model_after(job: Job, stages: int) -> Any:
    """The model after this many stages, on the job's device."""
    folders = [job.work / str(row["stage"]) for row in job.rows[:stages]]
    there = [folder for folder in folders if folder.is_dir()]
    device = next(job.model.parameters()).device
    return (_read_model(there[-1]) if there else job.given()).to(device)


def restore(job: Job) -> None:
    """Restore a job to the state after its last finished stage: the model, and the reports of the stages.

    Raises:
        ValueError: the stored state is damaged.
    """
    found = _read(job.work)
    job.rows, job.dense_after = found["rows"], found["dense_after"]
    if job.rows:
        job.model = _model_after(job, len(job.rows))


def dense_model(job: Job) -> Any:
    """The model before any stage compressed it."""
    if job.teacher is None:
        if job.dense_after is None:
            raise ValueError("no stage made the model smaller: there is no dense one beside it")
        job.teacher = _model_after(job, job.dense_after)
    return job.teacher


def dense_folder(job: Job, given: Path) -> Path:
    """The folder with the weights of `dense_model`; `given` if no earlier stage changed them."""
    folders = [job.work / str(row["stage"]) for row in job.rows[: job.dense_after or 0]]
    return next((folder for folder in reversed(folders) if folder.is_dir()), given)


def progress_text(work: Path, stages: list[str]) -> str:
    """What is left of a stopped run on disk, and how to resume it, in a sentence or two.

    Args:
        work: work folder of the run.
        stages: names of its stages, with their numbers.
    """
    finished = count_finished(work)
    kept = list(stages[:finished])
    if finished < len(stages):
        checkpoint = work / f"{stages[finished]}.safetensors"
        if checkpoint.exists():
            progress = read_progress(checkpoint)
            kept.append(f"{stages[finished]} up to step {progress['report']['steps']} of {progress['steps']}")
        cached = len(list((work / f"{stages[finished]}-teacher").glob("[0-9]*.safetensors")))
        if cached:
            kept.append(f"the teacher's outputs for {cached} {'batch' if cached == 1 else 'batches'}")
    if not kept:
        return "stopped: no stage is finished, nothing is kept; the same command starts again"
    text = f"stopped; kept in {work}: {', '.join(kept)}. The same command resumes from there."
    return textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False)
