"""The stage `finetune`: train on labels (classification) or the next token (language)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsekit.recipes.stages.stage import Before, StageKind
from sparsekit.recipes.stages.training import Training, check_training, train_model
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job


class Finetune(Training):
    """Train on labels (classification) or the next token (language)."""

    @property
    def needs_labels(self) -> bool:
        """The loss uses labels."""
        return True


def check(job: Job, settings: Finetune, before: Before) -> None:
    """Refuse embeddings, which have no labels, and settings that do not fit the data."""
    if job.recipe.task == "embedding":
        raise ValueError("embeddings have no labels to be fine-tuned on here; use distill")
    check_training(job, settings, before, job.labeled())


def finetune(job: Job, settings: Finetune) -> dict[str, Any]:
    """Train on labels, with dropout; batches without any are left out."""
    model = NamedOutputs(job.model).train()
    told = train_model(job, model, job.labeled(), job.task.loss, settings)
    model.eval()
    return told


STAGE = StageKind(Finetune, finetune, lambda row: "fine-tuning", check)
