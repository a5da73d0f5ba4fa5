"""What every stage that trains has in common: frozen modules, kept zeros, pruning as it goes, checkpoints and a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsekit.introspect.selection import select
from sparsekit.pruning import apply_movement, keep_zeros
from sparsekit.pruning.movement import masked_sparsity
from sparsekit.pruning.schedule import Schedule
from sparsekit.recipes import recipe
from sparsekit.recipes.job import Job
from sparsekit.recipes.tasks import Named
from sparsekit.training import GradualMovement, GradualPruning, Penalised, TrainReport, train
from sparsekit.training.processes import process_count
from sparsekit.training.run import ParameterGroup


def _named(model: Any, patterns: Sequence[str] | None) -> list[nn.Module]:
    """The modules that patterns name; None: the embeddings of tokens."""
    if patterns is None:
        return [model.get_input_embeddings()]
    return list(select(model, patterns).values()) if patterns else []


@contextmanager
def _frozen(model: Any, patterns: Sequence[str] | None) -> Iterator[None]:
    """Keep the parameters of modules from training."""
    held = [one for module in _named(model, patterns) for one in module.parameters() if one.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def schedule_of(stage: Any, seed: int, batches: int) -> Schedule:
    """When a stage that prunes does so as it trains on so many batches.

    Raises:
        ValueError: it has too few steps for that.
    """
    steps = stage.settings(seed).steps_of(batches, process_count())
    found: Schedule = stage.pruning.schedule(steps)
    return found


def _start_pruning(job: Job, stage: Any, batches: int) -> GradualPruning | GradualMovement | None:
    if stage.pruning is None:
        return None
    schedule, ignore = schedule_of(stage, job.recipe.seed, batches), job.outside_blocks()
    if stage.gradual is not None:
        chosen = {"scope": stage.gradual.scope, "mask_structure": stage.gradual.mask_structure, "ignore": ignore}
        return GradualPruning(job.model, schedule, **chosen)
    how: dict[str, Any] = {"soft": stage.movement.penalty is not None}
    if stage.movement.threshold is not None:
        how["threshold"] = stage.movement.threshold
    return GradualMovement(apply_movement(job.model, ignore=ignore, **how), schedule, stage.movement.penalty)


def log_of(job: Job) -> Path:
    """Where the stage that runs logs its steps, if it trains."""
    return job.work / f"{job.stage}.jsonl"


def learn(
    job: Job, model: nn.Module, batches: Sequence[Any], loss: Callable[..., torch.Tensor], stage: Any
) -> dict[str, Any]:
    """Train a job's model as a stage says; zeros that are there stay.

    Args:
        job: the job.
        model: its model, as the loss wants it.
        batches: what the loss takes.
        loss: of model and batch.
        stage: settings of a stage that trains.

    Returns:
        What the stage reports.
    """
    keep_zeros(job.blocks())
    pruning = _start_pruning(job, stage, len(batches))
    scores: list[ParameterGroup] = []
    if isinstance(pruning, GradualMovement):
        scores = [(pruning.movement.score_parameters(), stage.movement.learning_rate)]
        loss = loss if pruning.penalty is None else Penalised(loss, pruning)
    with _frozen(job.model, stage.freeze):
        report = train(
            model,
            batches,
            loss,
            replace(stage.settings(job.recipe.seed), patience_from=0 if pruning is None else pruning.schedule.end),
            before_step=pruning,
            evaluate=job.validation_score if stage.evaluate_every else None,
            checkpoint=log_of(job).with_suffix(".safetensors"),
            log=log_of(job),
            parameter_groups=scores,
            title=job.stage,
        )
    if isinstance(pruning, GradualMovement):
        pruning.movement.finish()
    return _told(job, report)


def _told(job: Job, report: TrainReport) -> dict[str, Any]:
    last = report.losses[-20:]
    sparsity = masked_sparsity(job.model)
    return {"steps": report.steps, "loss": sum(last) / len(last)} | ({"sparsity": sparsity} if sparsity else {})


def finetune(job: Job, stage: recipe.Finetune) -> dict[str, Any]:
    """Train on labels, with dropout; batches without any are left out."""
    model = Named(job.model).train()
    told: dict[str, Any] = learn(job, model, job.labelled(), job.task.loss, stage)
    model.eval()
    return told
