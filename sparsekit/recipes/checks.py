"""What can be known to be wrong before a recipe trains anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.distillation import LayerMap
from sparsekit.introspect.transformer_blocks import transformer_blocks
from sparsekit.pruning.zeros import pruned_layers
from sparsekit.recipes import recipe
from sparsekit.recipes.batches import Batch, inputs_of
from sparsekit.recipes.job import Job
from sparsekit.recipes.learning import schedule_of
from sparsekit.recipes.tasks import Named, attention_maps_of

#: Stages after which the dense model is kept as a teacher.
_SHRINKING = ("drop_layers", "prune_neurons", "prune_heads", "prune")


@dataclass
class _Before:
    """What the stages before one leave behind."""

    layers: int  # of the model
    pruned: bool = False  # whether weights are masked
    has_teacher: bool = False

    def add(self, stage: recipe.Stage) -> None:
        """Take a stage in that has passed its checks."""
        as_it_trains = getattr(stage.settings, "pruning", None) is not None
        self.layers = stage.drop_layers.layers if stage.drop_layers is not None else self.layers
        self.pruned |= stage.prune is not None or as_it_trains
        self.has_teacher |= stage.name in _SHRINKING or (stage.distill is not None and as_it_trains)


def check_stages(job: Job) -> None:
    """Check a job's stages against its model, its data and each other.

    Raises:
        FileNotFoundError: a teacher's folder is none.
        ValueError: a stage asks for what the model, the teacher or the task does not have.
    """
    most = getattr(job.model.config, "max_position_embeddings", None)
    if most is not None and job.recipe.data.max_tokens > most:
        raise ValueError(f"the model reads {most} tokens at most, and data.max_tokens is {job.recipe.data.max_tokens}")
    before = _Before(len(job.blocks()), pruned=bool(pruned_layers(job.blocks())))
    for number, stage in enumerate(job.recipe.stages, 1):
        try:
            _check_stage(job, stage, before)
        except ValueError as error:
            raise ValueError(f"stage {number}, {stage.name}: {error}") from error
        before.add(stage)


def _check_stage(job: Job, stage: recipe.Stage, before: _Before) -> None:
    if stage.finetune is not None and job.recipe.task == "embedding":
        raise ValueError("embeddings have no labels to be fine-tuned on here; use distill")
    if job.recipe.task == "embedding" and recipe.needs_loss(stage):
        asked = "spread" if getattr(stage.settings, "spread", 0) else f"criterion {stage.settings.criterion!r}"
        raise ValueError(f"{asked} needs a loss, which embeddings do not have; leave it out")
    if stage.drop_layers is not None and stage.drop_layers.layers > before.layers:
        raise ValueError(f"the model has {before.layers} blocks, and {stage.drop_layers.layers} are to be kept")
    if isinstance(stage.settings, recipe.Finetune | recipe.Distill):
        _check_training(job, stage.settings, before)
    if stage.distill is not None:
        _check_distill(job, stage.distill, before)


def _check_training(job: Job, stage: recipe.Finetune | recipe.Distill, before: _Before) -> None:
    if stage.evaluate_every and job.validation is None:
        raise ValueError(
            "evaluate_every needs validation data that can be scored: give a validation table, or "
            "data.validation_part above 0"
        )
    if stage.movement is not None and before.pruned:
        raise ValueError("movement pruning begins with all weights, and the model is pruned already; use gradual")
    if stage.pruning is not None:
        batches = job.labelled() if isinstance(stage, recipe.Finetune) else job.train
        schedule_of(stage, job.recipe.seed, len(batches))


def _check_distill(job: Job, stage: recipe.Distill, before: _Before) -> None:
    if stage.similarity_weight and job.recipe.task != "embedding":
        raise ValueError(f"similarity_weight is of embeddings; leave it out for the task {job.recipe.task}")
    if stage.teacher is not None:
        _check_teacher(job, stage, stage.teacher, before)
    elif not before.has_teacher and stage.pruning is None:
        raise ValueError("it needs a teacher: give teacher: FOLDER, or prune, drop_layers or prune_neurons before it")
    if stage.layer_map is not None or stage.attention_weight:
        teacher = job.model if stage.teacher is None else job.task.load(stage.teacher)[0]
        _check_layers(job, stage, teacher, before)


def _check_layers(job: Job, stage: recipe.Distill, teacher: Any, before: _Before) -> None:
    if stage.layer_map is not None:
        LayerMap.by_name(
            stage.layer_map, list(transformer_blocks(job.model))[: before.layers], list(transformer_blocks(teacher))
        )
    if stage.attention_weight:
        for model in (job.model, teacher):
            _check_attention(model, {name: value[:1] for name, value in inputs_of(job.train[0]).items()})


@torch.no_grad()
def _check_attention(model: Any, text: Batch) -> None:
    """Have a model show its attention maps."""
    with attention_maps_of(model):
        Named(model, ["attentions"])(**text)


def _check_teacher(job: Job, stage: recipe.Distill, folder: Path, before: _Before) -> None:
    from transformers import AutoConfig, AutoTokenizer

    check_model_folder(folder)
    tokenizer = from_folder(AutoTokenizer.from_pretrained, folder)
    if tokenizer.get_vocab() != job.tokenizer.get_vocab():
        raise ValueError(
            f"the teacher {folder} has another vocabulary than the student; they must read the same tokens"
        )
    own, other = job.model.config, from_folder(AutoConfig.from_pretrained, folder)
    wanted = {"num_labels": "classes"} if job.recipe.task == "classification" else {}
    if stage.hidden_weight and stage.hidden_loss == "square_head":
        wanted["hidden_size"] = "features: set hidden_loss: hidden_states, which learns a projection, or follow no"
    for name, what in wanted.items():
        pair: tuple[Any, Any] = getattr(own, name), getattr(other, name)
        if pair[0] != pair[1]:
            raise ValueError(f"the student has {pair[0]} and the teacher {folder} has {pair[1]} {what}")
    if stage.layers and stage.layer_map is None and before.layers > other.num_hidden_layers:
        raise ValueError(
            f"the student has more layers ({before.layers}) than the teacher {folder} ({other.num_hidden_layers}); say "
            "with layer_map which follow which, or set hidden_weight: 0 and attention_weight: 0"
        )
