"""Pruning while a stage trains: gradual magnitude pruning, or movement pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from sparsekit.pruning import Schedule, apply_movement
from sparsekit.pruning.masks.from_scores import structure_sparsity
from sparsekit.recipes.settings import MaskStructure, Strict
from sparsekit.training import GradualMovement, GradualPruning
from sparsekit.training.processes import process_count

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job
    from sparsekit.recipes.stages.training import Training


class _Rise(Strict):
    start: float = Field(default=0.0, ge=0, lt=1)  # fraction of the stage's steps, as is `end`
    end: float = Field(default=0.7, gt=0, le=1)
    rise: Literal["linear", "cubic"] = "cubic"

    def _schedule(self, steps: int, **changes: Any) -> Schedule:
        """Schedule for a run of this many steps; it ends before the last step."""
        start, end = round(self.start * steps), min(steps - 1, round(self.end * steps))
        return Schedule(start=start, end=end, rise=self.rise, **changes)


class Gradual(_Rise):
    """Prune by magnitude in steps while a stage trains, instead of at once."""

    sparsity: float = Field(gt=0, lt=1)
    initial_sparsity: float = Field(default=0.0, ge=0, lt=1)
    frequency: int = Field(default=20, ge=1)
    scope: Literal["row", "layer", "global"] = "global"
    mask_structure: MaskStructure = "unstructured"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if structure_sparsity(self.mask_structure) is not None:
            raise ValueError(f"mask_structure {self.mask_structure!r} fixes the sparsity, which cannot rise")
        self.schedule(1000)
        return self

    def schedule(self, steps: int) -> Schedule:
        """When to prune, and to which sparsity, in a run of this many steps."""
        return self._schedule(
            steps, final_sparsity=self.sparsity, initial_sparsity=self.initial_sparsity, frequency=self.frequency
        )


class Movement(_Rise):
    """Learn scores that select weights while a stage trains: hard, to a given sparsity, or soft, by a penalty."""

    sparsity: float | None = Field(default=None, gt=0, lt=1)  # hard: of every layer
    penalty: float | None = Field(default=None, gt=0)  # soft: weight of the mean of sigmoid(score) in the loss
    threshold: float | None = Field(default=None, gt=0, lt=0.5)  # soft: keep weights with sigmoid(score) above it
    learning_rate: float = Field(default=1e-2, gt=0)  # for the scores

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.sparsity is None) == (self.penalty is None):
            raise ValueError("give sparsity for hard movement pruning, or penalty for soft")
        if self.threshold is not None and self.penalty is None:
            raise ValueError("threshold is of soft movement pruning; leave it out, or give penalty instead of sparsity")
        self.schedule(1000)
        return self

    def schedule(self, steps: int) -> Schedule:
        """How the sparsity, or the weight of the penalty, rises in a run of this many steps."""
        return self._schedule(steps, final_sparsity=self.sparsity or 0.0)


def schedule_of(settings: Training, batches: int) -> Schedule:
    """Pruning schedule of a stage that trains on this many batches.

    Raises:
        ValueError: the stage has too few steps for its schedule.
    """
    pruning = settings.pruning
    if pruning is None:
        raise ValueError("the stage does not prune while it trains")
    return pruning.schedule(settings.loop_settings(0).steps_of(batches, process_count()))


def start_pruning(job: Job, settings: Training, batches: int) -> GradualPruning | GradualMovement | None:
    """The callback that prunes before the training steps of a stage; None if the stage does not prune."""
    if settings.pruning is None:
        return None
    schedule, ignore = schedule_of(settings, batches), job.outside_transformer_blocks()
    if isinstance(settings.pruning, Gradual):
        chosen: dict[str, Any] = {
            "scope": settings.pruning.scope,
            "mask_structure": settings.pruning.mask_structure,
            "ignore": ignore,
        }
        return GradualPruning(job.model, schedule, **chosen)
    movement = settings.pruning
    options: dict[str, Any] = {"soft": movement.penalty is not None}
    if movement.threshold is not None:
        options["threshold"] = movement.threshold
    return GradualMovement(apply_movement(job.model, ignore=ignore, **options), schedule, movement.penalty)
