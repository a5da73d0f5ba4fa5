"""The stage `evaluate`: score the model as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparsekit.recipes.stages.stage import StageKind, StageSettings

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job


class Evaluate(StageSettings):
    """Score the model on the test data now."""

    changes_model: ClassVar[bool] = False

    def forward_passes(self, job: Job) -> float:
        """One for each batch of the test data."""
        return job.test_batches

    @property
    def needs_labels(self) -> bool:
        """Scores compare with labels."""
        return True


def evaluate(job: Job, settings: Evaluate) -> dict[str, Any]:
    """Score the model on the test data."""
    del settings
    return job.scores()


STAGE = StageKind(Evaluate, evaluate, lambda row: "evaluation")
