"""Checks that run before a recipe trains anything."""

from __future__ import annotations

from sparsekit.pruning.masks.zeros import pruned_layers
from sparsekit.recipes.job import Job
from sparsekit.recipes.stages.stage import Before


def check_tokens(job: Job) -> None:
    """Raise ValueError if texts may be longer than a job's model reads."""
    most = getattr(job.model.config, "max_position_embeddings", None)
    if most is not None and job.recipe.data.max_tokens > most:
        raise ValueError(f"the model reads {most} tokens at most, and data.max_tokens is {job.recipe.data.max_tokens}")


def check_stages(job: Job) -> None:
    """Check a job's stages against its model, its data and each other.

    Raises:
        FileNotFoundError: a teacher's folder does not exist.
        ValueError: a stage needs something that the model, the teacher or the task does not have.
    """
    check_tokens(job)
    blocks = job.transformer_blocks()
    before = Before(len(blocks), pruned=bool(pruned_layers(blocks)))
    for number, stage in enumerate(job.recipe.stages, 1):
        try:
            stage.kind.check(job, stage.settings, before)
        except ValueError as error:
            raise ValueError(f"stage {number}, {stage.name}: {error}") from error
        stage.settings.update(before)
