"""What can be known to be wrong before a recipe trains anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsekit.compress import recipe
from sparsekit.compress.job import Job

#: Stages after which the dense model is kept as a teacher.
_SHRINKING = ("shorten", "prune_neurons", "prune_heads", "prune")


def check_stages(job: Job) -> None:
    """Check a job's stages against its model, its data and each other.

    Raises:
        FileNotFoundError: a teacher's folder is none.
        ValueError: a stage asks for what the model, the teacher or the task does not have.
    """
    most = getattr(job.model.config, "max_position_embeddings", None)
    if most is not None and job.recipe.data.max_tokens > most:
        raise ValueError(f"the model reads {most} tokens at most, and data.max_tokens is {job.recipe.data.max_tokens}")
    has_teacher = False
    for number, stage in enumerate(job.recipe.stages, 1):
        try:
            _check_stage(job, stage, has_teacher)
        except ValueError as error:
            raise ValueError(f"stage {number}, {stage.name}: {error}") from error
        has_teacher = (
            has_teacher or stage.name in _SHRINKING or (stage.distil is not None and bool(stage.distil.gradual))
        )


def _check_stage(job: Job, stage: recipe.Stage, has_teacher: bool) -> None:
    if stage.finetune is not None and job.recipe.task == "embedding":
        raise ValueError("embeddings have no labels to be fine-tuned on here; use distil")
    if job.recipe.task == "embedding" and getattr(stage.settings, "criterion", "") in recipe.OF_LOSS:
        raise ValueError(f"criterion {stage.settings.criterion!r} needs a loss, which embeddings do not have")
    if stage.shorten is not None and stage.shorten.layers > len(job.blocks()):
        raise ValueError(f"the model has {len(job.blocks())} blocks, and {stage.shorten.layers} are to be kept")
    if getattr(stage.settings, "evaluate_every", 0) and job.test is None:
        raise ValueError("evaluate_every needs test data: give a test table, or data.test_part above 0")
    if stage.distil is None:
        return
    if stage.distil.teacher is not None:
        _check_teacher(job, stage.distil.teacher, follows_layers=stage.distil.hidden_weight > 0)
    elif not has_teacher and stage.distil.gradual is None:
        raise ValueError("it needs a teacher: give teacher: FOLDER, or prune, shorten or prune_neurons before it")


def _check_teacher(job: Job, folder: Path, *, follows_layers: bool) -> None:
    from transformers import AutoConfig, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"the teacher {folder} is no model folder: it has no config.json")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.get_vocab() != job.tokenizer.get_vocab():
        raise ValueError(
            f"the teacher {folder} has another vocabulary than the student; they must read the same tokens"
        )
    own, other = job.model.config, AutoConfig.from_pretrained(folder, local_files_only=True)
    wanted = {"num_labels": "classes"} if job.recipe.task == "classification" else {}
    if follows_layers:
        wanted["hidden_size"] = "features, which hidden_weight: 0 does not follow"
        if own.num_hidden_layers > other.num_hidden_layers:
            raise ValueError(f"the student has more layers than the teacher {folder}; set hidden_weight: 0")
    for name, what in wanted.items():
        pair: tuple[Any, Any] = getattr(own, name), getattr(other, name)
        if pair[0] != pair[1]:
            raise ValueError(f"the student has {pair[0]} and the teacher {folder} has {pair[1]} {what}")
