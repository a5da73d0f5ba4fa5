"""The stages that make a model smaller: fewer blocks, neurons, heads, weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparsekit.distillation import drop_layers
from sparsekit.pruning import (
    METHODS,
    allocate_sparsity,
    prune,
    prune_heads,
    prune_neurons,
    pruning_report,
)
from sparsekit.recipes import recipe
from sparsekit.recipes.batches import Batch, has_label, one_by_one
from sparsekit.recipes.job import Job
from sparsekit.recipes.tasks import Named

#: Most gradients of single texts that are taken to see what layers can spare; SmolLM2 was pruned well by 64.
_GRADIENTS = 128


def _loss_of(job: Job, model: nn.Module, batch: Batch) -> torch.Tensor:
    """What fine-tuning would minimise, of the bare model."""
    return job.task.loss(Named(model), batch)


def _calibration(job: Job, samples: int, criterion: str) -> dict[str, Any]:
    """Batches and loss that a criterion needs."""
    method = METHODS[criterion]
    if not method.needs_batches:
        return {}
    loss = {"loss": lambda model, batch: _loss_of(job, model, batch)} if method.needs_loss else {}
    return {"batches": job.sample(samples, labels=method.needs_loss), **loss}


def _size(job: Job) -> int:
    return sum(parameter.numel() for parameter in job.model.parameters())


def remove_layers(job: Job, stage: recipe.DropLayers) -> dict[str, Any]:
    """Keep some of the blocks."""
    job.keep_teacher()
    before = len(job.blocks())
    job.model = drop_layers(job.model, stage.layers)
    return {"layers_before": before, "layers": len(job.blocks())}


def remove_neurons(job: Job, stage: recipe.PruneNeurons) -> dict[str, Any]:
    """Remove hidden units of the MLPs."""
    return _remove_units(job, stage, prune_neurons)


def remove_heads(job: Job, stage: recipe.PruneHeads) -> dict[str, Any]:
    """Remove attention heads."""
    return _remove_units(job, stage, prune_heads)


def _remove_units(
    job: Job, stage: recipe.PruneNeurons | recipe.PruneHeads, remove: Callable[..., dict[str, int]]
) -> dict[str, Any]:
    job.keep_teacher()
    before = _size(job)
    calibration = _calibration(job, stage.samples, stage.criterion)
    remove(job.model, stage.fraction, criterion=stage.criterion, scope=stage.scope, **calibration)
    return {"parameters_before": before, "parameters": _size(job)}


def _sparsity(job: Job, stage: recipe.Prune, chosen: dict[str, Any]) -> float | dict[str, float]:
    """One sparsity for all layers, or where they may differ one for each.

    Another criterion scores the weights where this one has no scores before it prunes.
    """
    if not stage.spread:
        return stage.wanted
    sampled = one_by_one(job.sample(min(stage.samples, _GRADIENTS), labels=True))
    texts = [text for text in sampled if has_label(text)][:_GRADIENTS]
    scored_by = METHODS[stage.criterion].scored_by or stage.criterion
    return allocate_sparsity(
        job.model,
        stage.wanted,
        texts,
        loss=lambda model, batch: _loss_of(job, model, batch),
        spread=stage.spread,
        criterion=scored_by,
        calibration=_calibration(job, stage.samples, scored_by).get("batches"),
        scope=stage.scope,
        **chosen,
    )


def make_zeros(job: Job, stage: recipe.Prune) -> dict[str, Any]:
    """Prune weights; the masks stay."""
    job.keep_teacher()
    ignore = job.outside_blocks() if stage.ignore is None else stage.ignore
    chosen: dict[str, Any] = {"targets": stage.targets, "ignore": ignore, "mask_structure": stage.mask_structure}
    chosen |= {"sparsity": _sparsity(job, stage, chosen)}
    calibration = _calibration(job, stage.samples, stage.criterion)
    reached = prune(job.model, criterion=stage.criterion, scope=stage.scope, **calibration, **chosen)
    layers = [layer for layer in pruning_report(job.model).layers if layer.name in reached]
    weights = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    return {
        "layers": len(layers),
        "sparsity": 1.0 - sum(layer.nnz for layer in layers) / weights,
        **({"least": min(reached.values()), "most": max(reached.values())} if stage.spread else {}),
        "dead_outputs": sum(layer.dead_rows for layer in layers),
        "over_pruned": [layer.name for layer in layers if layer.over_pruned],
    }
