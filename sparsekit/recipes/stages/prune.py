"""The stage `prune`: set weights to zero and keep the masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from sparsekit.pruning import METHODS, allocate_sparsity, prune_sparsegpt, pruning_report
from sparsekit.pruning import prune as prune_model
from sparsekit.pruning.masks.from_scores import structure_sparsity
from sparsekit.pruning.methods import weight_methods
from sparsekit.pruning.sparsity import sparsities_of, wanted_sparsity
from sparsekit.recipes.data.batches import has_label, one_by_one
from sparsekit.recipes.settings import MaskStructure
from sparsekit.recipes.stages.calibration import calibration, check_loss, loss_of
from sparsekit.recipes.stages.stage import Before, StageKind, StageSettings

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job

#: Largest number of per-text gradients to measure sensitivity with; 64 were enough for SmolLM2.
_GRADIENTS = 128


if TYPE_CHECKING:
    Criterion: TypeAlias = str
else:
    Criterion = Literal[tuple(weight_methods())]


class Prune(StageSettings):
    """Set weights to zero."""

    shrinks_model: ClassVar[bool] = True

    sparsity: float | None = Field(default=None, ge=0, lt=1)
    sparsities: dict[str, Annotated[float, Field(ge=0, lt=1)]] | None = None  # of each layer, by its name, instead
    criterion: Criterion = "sparsegpt"
    mask_structure: MaskStructure = "unstructured"
    dtype: Literal["int4"] | None = None  # round the weights that stay as well; of sparsegpt
    scope: Literal["row", "layer", "global"] | None = None
    spread: float = Field(default=0.0, ge=0, le=1)  # largest deviation of a layer's sparsity from the mean; 0: uniform
    samples: int = Field(default=512, ge=1)  # texts to calibrate on
    targets: list[str] = Field(default=["Linear"])
    ignore: list[str] | None = None  # None: every layer outside the transformer blocks

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sparsities is not None:
            self._check_sparsities(self.sparsities)
        elif self.sparsity is None and structure_sparsity(self.mask_structure) is None:
            raise ValueError("give sparsity, a fraction such as 0.8, or a mask_structure such as 2:4, which implies it")
        else:
            wanted_sparsity(self.sparsity, None, self.mask_structure)
        if self.scope is not None and not METHODS[self.criterion].scopes:
            raise ValueError(f"criterion {self.criterion!r} prunes layer by layer; leave out scope")
        if self.dtype is not None and "dtype" not in METHODS[self.criterion].takes:
            raise ValueError(f"criterion {self.criterion!r} does not round; leave out dtype, or use sparsegpt")
        if self.spread and (self.scope == "global" or structure_sparsity(self.mask_structure) is not None):
            raise ValueError("spread is for layers whose sparsity is free: leave out scope global, N:M, or spread")
        return self

    def _check_sparsities(self, sparsities: dict[str, float]) -> None:
        if self.sparsity is not None or self.spread or self.scope == "global":
            raise ValueError("sparsities give every layer its own: leave out sparsity, spread, and scope global")
        sparsities_of(sparsities, sparsities, self.mask_structure)

    @property
    def needs_loss(self) -> bool:
        """Gradient-based criteria and per-layer sparsities need a loss."""
        return METHODS[self.criterion].needs_loss or self.spread > 0

    def forward_passes(self, job: Job) -> float:
        """Statistics of the calibration batches take as long as a backward pass."""
        return 3 * self.samples / job.recipe.data.batch_size * METHODS[self.criterion].needs_batches

    def update(self, before: Before) -> None:
        """Later stages see masked weights."""
        super().update(before)
        before.pruned = True


def _sparsity(job: Job, settings: Prune, chosen: dict[str, Any]) -> float | dict[str, float]:
    """One sparsity for all layers, or one for each if the recipe lists them or `spread` is set.

    If the criterion has no scores before it prunes, its `scored_by` criterion is used to allocate sparsity.
    """
    if settings.sparsities is not None:
        return settings.sparsities
    wanted = wanted_sparsity(settings.sparsity, None, settings.mask_structure) or 0.0
    if not settings.spread:
        return wanted
    sampled = one_by_one(job.sample(min(settings.samples, _GRADIENTS), labels=True))
    scored_by = METHODS[settings.criterion].scored_by or settings.criterion
    return allocate_sparsity(
        job.model,
        wanted,
        [text for text in sampled if has_label(text)][:_GRADIENTS],
        loss=lambda model, batch: loss_of(job, model, batch),
        spread=settings.spread,
        criterion=scored_by,
        calibration=calibration(job, settings.samples, scored_by).get("batches"),
        scope=settings.scope,
        **chosen,
    )


def _prune(job: Job, settings: Prune, chosen: dict[str, Any]) -> dict[str, float]:
    if settings.dtype is not None:
        return prune_sparsegpt(job.model, dtype=settings.dtype, **chosen)
    return prune_model(job.model, criterion=settings.criterion, scope=settings.scope, **chosen)


def prune(job: Job, settings: Prune) -> dict[str, Any]:
    """Prune weights and keep the masks."""
    job.keep_teacher()
    ignore = job.outside_transformer_blocks() if settings.ignore is None else settings.ignore
    chosen: dict[str, Any] = {"targets": settings.targets, "ignore": ignore, "mask_structure": settings.mask_structure}
    chosen |= {"sparsity": _sparsity(job, settings, chosen)}
    calibrated = calibration(job, settings.samples, settings.criterion)
    reached = _prune(job, settings, calibrated | chosen)
    return _reported(job, settings, reached)


def _reported(job: Job, settings: Prune, reached: dict[str, float]) -> dict[str, Any]:
    layers = [layer for layer in pruning_report(job.model).layers if layer.name in reached]
    weights = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    return {
        "layers": len(layers),
        "sparsity": 1.0 - sum(layer.nnz for layer in layers) / weights,
        **(
            {"least": min(reached.values()), "most": max(reached.values())}
            if settings.spread or settings.sparsities
            else {}
        ),
        "empty_rows": sum(layer.empty_rows for layer in layers),
        "too_sparse_layers": [layer.name for layer in layers if layer.too_sparse],
    }


STAGE = StageKind(Prune, prune, lambda row: f"pruning {row['sparsity']:.0%}", check_loss)
