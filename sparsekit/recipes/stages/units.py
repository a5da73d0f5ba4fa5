"""Shared by the stages that remove neurons or heads, which shrink layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from sparsekit.pruning import METHODS
from sparsekit.recipes.stages.calibration import calibration
from sparsekit.recipes.stages.stage import StageSettings

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job


if TYPE_CHECKING:
    UnitCriterion: TypeAlias = str
else:
    UnitCriterion = Literal[tuple(name for name, method in METHODS.items() if method.unit_score is not None)]


class Units(StageSettings):
    """How many units to remove, and by which criterion."""

    shrinks_model: ClassVar[bool] = True

    fraction: float = Field(gt=0, lt=1)
    criterion: UnitCriterion
    scope: Literal["layer", "global"] = "layer"
    samples: int = Field(default=512, ge=1)  # texts to calibrate on

    @property
    def needs_loss(self) -> bool:
        """Some criteria score units by gradients."""
        return METHODS[self.criterion].needs_loss


def _parameters(job: Job) -> int:
    return sum(parameter.numel() for parameter in job.model.parameters())


def remove_units(job: Job, settings: Units, remove: Callable[..., dict[str, int]]) -> dict[str, Any]:
    """Remove units with `prune_neurons` or `prune_heads`."""
    job.keep_teacher()
    before = _parameters(job)
    calibrated = calibration(job, settings.samples, settings.criterion)
    remove(job.model, settings.fraction, criterion=settings.criterion, scope=settings.scope, **calibrated)
    return {"parameters_before": before, "parameters": _parameters(job)}
