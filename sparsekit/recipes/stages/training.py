"""Shared by all stages that train: frozen modules, fixed masks, pruning while training, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from sparsekit.introspect.selection import select
from sparsekit.pruning import keep_zeros
from sparsekit.pruning.movement import masked_sparsity
from sparsekit.recipes.settings import MAX_BATCH_SIZE, MAX_EPOCHS
from sparsekit.recipes.stages.pruning_while_training import Gradual, Movement, schedule_of, start_pruning
from sparsekit.recipes.stages.stage import Before, StageSettings
from sparsekit.training import GradualMovement, Penalized, TrainReport, train
from sparsekit.training.optimizer import ParameterGroup
from sparsekit.training.settings import TrainSettings

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job

#: Number of steps over which the reported loss is averaged.
_REPORTED_STEPS = 20


class Training(StageSettings):
    """Settings of a stage that trains; see `sparsekit.training.TrainSettings`."""

    epochs: float = Field(default=1.0, gt=0, le=MAX_EPOCHS)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup: float = Field(default=0.06, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1, le=MAX_BATCH_SIZE)
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    checkpoint_minutes: float = Field(default=2.0, ge=0)  # time between checkpoints
    shard: bool = False  # across processes, if model and gradients do not fit into memory together
    freeze: list[str] | None = None  # modules whose parameters are not trained; None: the token embeddings
    gradual: Gradual | None = None
    movement: Movement | None = None

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        if self.gradual is not None and self.movement is not None:
            raise ValueError("gradual and movement both prune while the stage trains; leave out one")
        soft = self.movement is not None and self.movement.penalty is not None
        if self.patience and soft:
            raise ValueError("soft movement pruning changes the sparsity until its last step; leave out patience")
        if self.shard and soft:
            raise ValueError(
                "soft movement pruning does not work on sharded weights; give sparsity, or leave out shard"
            )
        self.loop_settings(0)
        return self

    @property
    def pruning(self) -> Gradual | Movement | None:
        """Settings of pruning while the stage trains, if any."""
        return self.gradual or self.movement

    @property
    def needs_validation(self) -> bool:
        """Evaluation while training needs validation data."""
        return self.evaluate_every > 0

    def loop_settings(self, seed: int) -> TrainSettings:
        """These settings in the form that `train` takes."""
        given_by_the_run = ("seed", "patience_from")
        names = [field.name for field in fields(TrainSettings) if field.name not in given_by_the_run]
        return TrainSettings(seed=seed, **{name: getattr(self, name) for name in names})

    def forward_passes(self, job: Job) -> float:
        """A backward pass takes as long as two forward passes."""
        return 3 * self.epochs * len(job.train)

    def update(self, before: Before) -> None:
        """Later stages see masked weights if the stage prunes."""
        super().update(before)
        before.pruned |= self.pruning is not None


def check_training(job: Job, settings: Training, before: Before, batches: Sequence[Any]) -> None:
    """Refuse evaluation without validation data, movement pruning of a pruned model, and too short a schedule."""
    if settings.evaluate_every and job.validation is None:
        raise ValueError(
            "evaluate_every needs validation data that can be scored: give a validation table, or "
            "data.validation_part above 0"
        )
    if settings.movement is not None and before.pruned:
        raise ValueError("movement pruning begins with all weights, and the model is pruned already; use gradual")
    if settings.pruning is not None:
        schedule_of(settings, len(batches))


def _named(model: Any, patterns: Sequence[str] | None) -> list[nn.Module]:
    """The modules that match the patterns; None: the token embeddings."""
    if patterns is None:
        return [model.get_input_embeddings()]
    return list(select(model, patterns).values()) if patterns else []


@contextmanager
def _frozen(model: Any, patterns: Sequence[str] | None) -> Iterator[None]:
    """Freeze the parameters of modules."""
    frozen = [one for module in _named(model, patterns) for one in module.parameters() if one.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def train_model(
    job: Job, model: nn.Module, batches: Sequence[Any], loss: Callable[..., torch.Tensor], settings: Training
) -> dict[str, Any]:
    """Train a job's model; pruned weights stay zero.

    Args:
        job: the job.
        model: its model, in the form that the loss takes.
        batches: batches, in the form that the loss takes.
        loss: function of model and batch.
        settings: settings of the stage.

    Returns:
        Report of the stage.
    """
    keep_zeros(job.transformer_blocks())
    pruning = start_pruning(job, settings, len(batches))
    groups: list[ParameterGroup] = []
    if isinstance(pruning, GradualMovement) and settings.movement is not None:
        groups = [(pruning.movement.score_parameters(), settings.movement.learning_rate)]
        loss = loss if pruning.penalty is None else Penalized(loss, pruning)
    patience_from = 0 if pruning is None else pruning.schedule.end
    with _frozen(job.model, settings.freeze):
        report = train(
            model,
            batches,
            loss,
            replace(settings.loop_settings(job.recipe.seed), patience_from=patience_from),
            before_step=pruning,
            evaluate=job.validation_score if settings.evaluate_every else None,
            checkpoint=job.log.with_suffix(".safetensors"),
            log=job.log,
            parameter_groups=groups,
            title=job.stage,
        )
    if isinstance(pruning, GradualMovement):
        pruning.movement.finish()
    return _reported(job, report)


def _reported(job: Job, report: TrainReport) -> dict[str, Any]:
    last = report.losses[-_REPORTED_STEPS:]
    sparsity = masked_sparsity(job.model)
    return {"steps": report.steps, "loss": sum(last) / len(last)} | ({"sparsity": sparsity} if sparsity else {})
