"""The stage `convert`: replace pruned layers with sparse ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sparsekit.conversion import conversion_report
from sparsekit.conversion import convert as convert_model
from sparsekit.pruning import finalize
from sparsekit.recipes.settings import MAX_TOKENS
from sparsekit.recipes.stages.stage import StageKind, StageSettings

if TYPE_CHECKING:
    from sparsekit.conversion.report import LayerReport
    from sparsekit.recipes.data.batches import Batch
    from sparsekit.recipes.job import Job

#: Texts to time the converted and the dense model on.
_TIMED_TEXTS = 4
#: Texts to measure the error budget on.
_BUDGET_TEXTS = 64


class Convert(StageSettings):
    """Replace pruned layers with sparse ones."""

    dtype: Literal["float32", "bfloat16", "float16", "int8", "int4"] = "float32"
    embeddings: Literal["float32", "int8"] = "float32"
    tokens: list[Annotated[int, Field(ge=1, le=MAX_TOKENS)]] = Field(default=[1, 128], min_length=1, max_length=16)
    min_sparsity: float | None = Field(default=None, ge=0, le=1)
    error_budget: float | None = Field(default=None, gt=0)


def _timed_batch(job: Job) -> list[Batch]:
    return [{name: value[:_TIMED_TEXTS] for name, value in job.sample(1)[0].items()}]


def _kept(layer: LayerReport) -> dict[str, Any]:
    """Entry of a layer in the run's report, as JSON types."""
    return {
        "name": layer.name,
        "shape": list(layer.shape),
        "sparsity": layer.sparsity,
        "dtype": layer.dtype,
        "block": layer.block,
        "layout": layer.layout,
        "bytes": layer.bytes_after,
        "reason": layer.reason,
    }


def convert(job: Job, settings: Convert) -> dict[str, Any]:
    """Replace the pruned layers with sparse ones, on the CPU."""
    job.keep_teacher()
    finalize(job.model.cpu())
    convert_model(
        job.model,
        ignore=job.outside_transformer_blocks(),
        tokens=settings.tokens,
        min_sparsity=settings.min_sparsity,
        dtype=settings.dtype,
        embeddings=settings.embeddings,
        error_budget=settings.error_budget,
        batches=job.sample(_BUDGET_TEXTS) if settings.error_budget is not None else _timed_batch(job),
    )
    report = conversion_report(job.model)
    found = report.to_dict()
    told = {name: found[name] for name in ("converted", "fused", "bytes_before", "bytes_after")}
    whole = {} if report.whole is None else {"whole_speedup": report.whole.speedup, "noisy": report.whole.noisy}
    layers = [_kept(layer) for layer in report.layers]
    return {"dtype": settings.dtype, "embeddings": settings.embeddings, **told, **whole, "layers": layers}


def _model_after(row: Mapping[str, Any]) -> str:
    if row["converted"]:
        return str(row["dtype"])
    return "int8 embeddings" if row["embeddings"] == "int8" else "convert, all layers dense"


STAGE = StageKind(Convert, convert, _model_after)
