"""What the stages of a recipe do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsekit.conversion import convert
from sparsekit.pruning import finalize
from sparsekit.recipes import recipe
from sparsekit.recipes.batches import Batch
from sparsekit.recipes.job import Job
from sparsekit.recipes.learning import finetune
from sparsekit.recipes.removal import make_zeros, remove_heads, remove_layers, remove_neurons
from sparsekit.recipes.teaching import distill

#: Texts that a converted model and its dense self are timed on.
_TEXTS = 4


def _one_batch(job: Job) -> list[Batch]:
    """A few texts, to see that the converted model runs and what it gains."""
    return [{name: value[:_TEXTS] for name, value in job.sample(1)[0].items()}]


def swap(job: Job, stage: recipe.Convert) -> dict[str, Any]:
    """Swap the pruned layers for sparse ones, on the CPU."""
    job.keep_teacher()
    finalize(job.model.cpu())
    report = convert(
        job.model,
        ignore=job.outside_blocks(),
        tokens=stage.tokens,
        min_sparsity=stage.min_sparsity,
        dtype=stage.dtype,
        error_budget=stage.error_budget,
        batches=job.sample(64) if stage.error_budget is not None else _one_batch(job),
    )
    found = report.to_dict()
    told = {name: found[name] for name in ("converted", "fused", "bytes_before", "bytes_after")}
    whole = {} if report.whole is None else {"whole_speedup": report.whole.speedup, "noisy": report.whole.noisy}
    return {"dtype": stage.dtype, **told, **whole}


def evaluate(job: Job, stage: recipe.Evaluate) -> dict[str, Any]:
    """Score the model as it is now."""
    del stage
    return job.scores()


#: What each stage of a recipe does.
STAGES: dict[str, Callable[[Job, Any], dict[str, Any]]] = {
    "finetune": finetune,
    "drop_layers": remove_layers,
    "prune_neurons": remove_neurons,
    "prune_heads": remove_heads,
    "prune": make_zeros,
    "distill": distill,
    "convert": swap,
    "evaluate": evaluate,
}
