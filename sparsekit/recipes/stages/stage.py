"""Base classes of stages: settings that are checked before anything trains, and a function that runs the stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparsekit.recipes.settings import Strict

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job


@dataclass
class Before:
    """State of the model after the preceding stages, for checks."""

    transformer_blocks: int  # number in the model
    pruned: bool = False  # whether weights are masked
    has_teacher: bool = False


class StageSettings(Strict):
    """Settings of a stage, and what a recipe must know before it runs."""

    #: Whether the stage changes the model, which is then stored after it.
    changes_model: ClassVar[bool] = True
    #: Whether the stage compresses the model: the model before it is the dense one, and the teacher.
    shrinks_model: ClassVar[bool] = False

    @property
    def needs_loss(self) -> bool:
        """Whether the stage scores weights or units by gradients of the loss."""
        return False

    @property
    def needs_labels(self) -> bool:
        """Whether the stage reads labels, in a classification recipe."""
        return self.needs_loss

    @property
    def needs_validation(self) -> bool:
        """Whether the stage scores the model while it trains."""
        return False

    def forward_passes(self, job: Job) -> float:
        """Estimated duration of the stage, in forward passes over a batch."""
        del job
        return 0.0

    def update(self, before: Before) -> None:
        """Record how the stage changes the model."""
        before.has_teacher |= self.shrinks_model


def _nothing_to_check(job: Job, settings: Any, before: Before) -> None:
    """Accept any settings."""


@dataclass(frozen=True)
class StageKind:
    """An entry of `STAGES`."""

    settings: type[StageSettings]
    run: Callable[[Job, Any], dict[str, Any]]  # changes the job's model; returns the report of the stage
    model_after: Callable[[Mapping[str, Any]], str]  # report of the stage -> name of the resulting model in tables
    check: Callable[[Job, Any, Before], None] = _nothing_to_check  # raises ValueError before anything trains
