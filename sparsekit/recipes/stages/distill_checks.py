"""Checks of the stage `distill` that run before anything trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.distillation import LayerMap
from sparsekit.introspect.transformer_blocks import transformer_blocks
from sparsekit.recipes.data.batches import Batch, inputs_of
from sparsekit.recipes.stages.stage import Before
from sparsekit.recipes.stages.training import check_training
from sparsekit.recipes.tasks.named_outputs import NamedOutputs, eager_attention

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job
    from sparsekit.recipes.stages.distill import Distill


def check(job: Job, settings: Distill, before: Before) -> None:
    """Refuse a teacher that does not fit the student, and outputs that either of them lacks."""
    check_training(job, settings, before, job.train)
    if settings.similarity_weight and job.recipe.task != "embedding":
        raise ValueError(f"similarity_weight is of embeddings; leave it out for the task {job.recipe.task}")
    if settings.teacher is not None:
        _check_teacher(job, settings, settings.teacher, before)
    elif not before.has_teacher and settings.pruning is None:
        raise ValueError("it needs a teacher: give teacher: FOLDER, or prune, drop_layers or prune_neurons before it")
    if settings.layer_map is not None or settings.attention_weight:
        teacher = job.model if settings.teacher is None else job.task.load(settings.teacher)[0]
        _check_layers(job, settings, teacher, before)


def _check_layers(job: Job, settings: Distill, teacher: Any, before: Before) -> None:
    if settings.layer_map is not None:
        student = list(transformer_blocks(job.model))[: before.transformer_blocks]
        LayerMap.by_name(settings.layer_map, student, list(transformer_blocks(teacher)))
    if settings.attention_weight:
        for model in (job.model, teacher):
            _check_attention(model, {name: value[:1] for name, value in inputs_of(job.train[0]).items()})


@torch.no_grad()
def _check_attention(model: Any, text: Batch) -> None:
    """Check that a model returns its attention maps."""
    with eager_attention(model):
        NamedOutputs(model, ["attentions"])(**text)


def _check_teacher(job: Job, settings: Distill, folder: Path, before: Before) -> None:
    from transformers import AutoConfig, AutoTokenizer

    check_model_folder(folder)
    tokenizer = from_folder(AutoTokenizer.from_pretrained, folder)
    if tokenizer.get_vocab() != job.tokenizer.get_vocab():
        raise ValueError(
            f"the teacher {folder} has another vocabulary than the student; they must read the same tokens"
        )
    own, other = job.model.config, from_folder(AutoConfig.from_pretrained, folder)
    wanted = {"num_labels": "classes"} if job.recipe.task == "classification" else {}
    if settings.hidden_weight and settings.hidden_loss == "square_head":
        wanted["hidden_size"] = "features: set hidden_loss: hidden_states, which learns a projection, or follow no"
    for name, what in wanted.items():
        pair: tuple[Any, Any] = getattr(own, name), getattr(other, name)
        if pair[0] != pair[1]:
            raise ValueError(f"the student has {pair[0]} and the teacher {folder} has {pair[1]} {what}")
    if settings.layers and settings.layer_map is None and before.transformer_blocks > other.num_hidden_layers:
        raise ValueError(
            f"the student has more layers ({before.transformer_blocks}) than the teacher {folder} "
            f"({other.num_hidden_layers}); say with layer_map which follow which, or set hidden_weight: 0 and "
            "attention_weight: 0"
        )
