"""What every stage has: settings that are checked before anything trains, and a function that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparsekit.recipes.settings import Strict

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job


@dataclass
class Before:
    """What the stages before one leave behind."""

    transformer_blocks: int  # of the model
    pruned: bool = False  # whether weights are masked
    has_teacher: bool = False


class StageSettings(Strict):
    """Settings of a stage, and what a recipe must know of it before it runs."""

    #: Whether the stage changes the model, which is then stored behind it.
    changes_model: ClassVar[bool] = True
    #: Whether it makes the model smaller: the model before it is the dense one, and the teacher.
    shrinks_model: ClassVar[bool] = False

    @property
    def needs_loss(self) -> bool:
        """Whether the stage takes gradients of the loss of the labels to see what to remove."""
        return False

    @property
    def needs_labels(self) -> bool:
        """Whether the stage of a classification reads labels."""
        return self.needs_loss

    @property
    def needs_validation(self) -> bool:
        """Whether the stage scores the model while it trains."""
        return False

    def forward_passes(self, job: Job) -> float:
        """How long the stage takes, about, in forward passes over a batch."""
        del job
        return 0.0

    def update(self, before: Before) -> None:
        """Record what the stage leaves behind."""
        before.has_teacher |= self.shrinks_model


def _nothing_to_check(job: Job, settings: Any, before: Before) -> None:
    """Accept any settings."""


@dataclass(frozen=True)
class StageKind:
    """An entry of `STAGES`."""

    settings: type[StageSettings]
    run: Callable[[Job, Any], dict[str, Any]]  # changes the job's model; returns what the stage reports
    model_after: Callable[[Mapping[str, Any]], str]  # what tables call the model after it, from what it reports
    check: Callable[[Job, Any, Before], None] = _nothing_to_check  # raises ValueError before anything trains
