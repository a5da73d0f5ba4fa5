"""Calibration of stages that prune: batches, and a loss for criteria that need gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sparsekit.pruning import METHODS
from sparsekit.recipes.data.batches import Batch
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job
    from sparsekit.recipes.stages.stage import Before, StageSettings


def loss_of(job: Job, model: nn.Module, batch: Batch) -> torch.Tensor:
    """Fine-tuning loss of the bare model."""
    return job.task.loss(NamedOutputs(model), batch)


def calibration(job: Job, samples: int, criterion: str) -> dict[str, Any]:
    """Batches and loss that a criterion needs, as keyword arguments."""
    method = METHODS[criterion]
    if not method.needs_batches:
        return {}
    loss = {"loss": lambda model, batch: loss_of(job, model, batch)} if method.needs_loss else {}
    return {"batches": job.sample(samples, labels=method.needs_loss), **loss}


def check_loss(job: Job, settings: StageSettings, before: Before) -> None:
    """Refuse a stage that needs a loss if the task has none."""
    del before
    if job.recipe.task == "embedding" and settings.needs_loss:
        asked = "spread" if getattr(settings, "spread", 0) else f"criterion {getattr(settings, 'criterion', None)!r}"
        raise ValueError(f"{asked} needs a loss, which embeddings do not have; leave it out")
