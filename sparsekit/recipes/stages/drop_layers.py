"""The stage `drop_layers`: keep some of the model's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparsekit import distillation
from sparsekit.recipes.stages.stage import Before, StageKind, StageSettings

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job


class DropLayers(StageSettings):
    """Keep some of the model's layers, evenly spaced."""

    shrinks_model: ClassVar[bool] = True

    layers: int = Field(ge=1)

    def update(self, before: Before) -> None:
        """Later stages see fewer layers."""
        super().update(before)
        before.transformer_blocks = self.layers


def check(job: Job, settings: DropLayers, before: Before) -> None:
    """Refuse to keep more layers than there are."""
    del job
    if settings.layers > before.transformer_blocks:
        raise ValueError(f"the model has {before.transformer_blocks} layers, and {settings.layers} are to be kept")


def drop_layers(job: Job, settings: DropLayers) -> dict[str, Any]:
    """Keep some of the layers."""
    job.keep_teacher()
    before = len(job.transformer_blocks())
    job.model = distillation.drop_layers(job.model, settings.layers)
    return {"layers_before": before, "layers": len(job.transformer_blocks())}


STAGE = StageKind(DropLayers, drop_layers, lambda row: f"{row['layers']} layers", check)
