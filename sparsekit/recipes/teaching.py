"""The stage in which a student learns from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from torch import nn

from sparsekit.distillation import (
    AttentionMaps,
    Distillation,
    HiddenStates,
    LayerMap,
    SquareHead,
    Teacher,
    TeacherCache,
)
from sparsekit.distillation.teacher_cache import Answers, ask
from sparsekit.introspect.transformer_blocks import transformer_blocks
from sparsekit.progress import Progress
from sparsekit.recipes import recipe
from sparsekit.recipes.batches import Batch, inputs_of
from sparsekit.recipes.job import Job
from sparsekit.recipes.keeping import dense_model, teacher_cache_of
from sparsekit.recipes.learning import learn
from sparsekit.recipes.tasks import Named, attention_maps_of
from sparsekit.training import autocast, first_alone

#: A batch and the teacher's answers to it.
Lesson: TypeAlias = tuple[Batch, Answers]


class _Lessons(Sequence[Lesson]):
    """Batches with the teacher's answers."""

    def __init__(self, batches: Sequence[Batch], answers: Callable[[int], Answers]) -> None:
        self.batches = batches
        self.answers = answers

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: Any) -> Any:
        return self.batches[number], self.answers(number)


class _FollowTeacher(nn.Module):
    """The loss of a lesson."""

    def __init__(self, objective: Distillation) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, model: nn.Module, lesson: Lesson) -> torch.Tensor:
        batch, answers = lesson
        loss: torch.Tensor = self.objective(model(**inputs_of(batch)), answers, batch)
        return loss


def _asked_now(teacher: Teacher, precision: str, batch: Batch, keep: Sequence[str], top_k: int | None) -> Answers:
    """Answers that are used once, in the precision of the student; those for a cache are computed in float32."""
    with autocast(teacher, precision):
        return ask(teacher, batch, keep, top_k)


def _lessons(job: Job, stage: recipe.Distill, teacher: Any) -> _Lessons:
    asked = Teacher(Named(teacher, stage.layers))
    keep = [*stage.layers, *([job.task.output] if stage.soft_weight > 0 else [])]
    top_k = stage.top_k if job.recipe.task == "language" and stage.soft_weight > 0 else None
    inputs = [inputs_of(batch) for batch in job.train]
    if not stage.cache:
        return _Lessons(job.train, lambda number: _asked_now(asked, stage.precision, inputs[number], keep, top_k))
    folder = teacher_cache_of(job)
    with Progress[Batch](title=f"{job.stage}, ask the teacher", unit="batches", total=len(inputs)) as bar:
        cache = first_alone(
            lambda: TeacherCache(
                folder,
                asked,
                inputs,
                tokenizer=job.tokenizer,
                keep=keep,
                top_k=top_k,
                on_batch=lambda _: bar.update(),
            )
        )
    return _Lessons(job.train, cache.__getitem__)


def _layer_map(stage: recipe.Distill, student: Any, teacher: Any) -> LayerMap:
    if stage.layer_map is not None:
        return LayerMap.by_name(stage.layer_map, list(transformer_blocks(student)), list(transformer_blocks(teacher)))
    return LayerMap.even(student.config.num_hidden_layers, teacher.config.num_hidden_layers)


def _hidden_loss(stage: recipe.Distill, student: Any, teacher: Any, layers: int) -> nn.Module:
    if stage.hidden_loss == "square_head":
        return SquareHead()
    return HiddenStates(student.config.hidden_size, teacher.config.hidden_size, layers)


def _objective(job: Job, stage: recipe.Distill, teacher: Any) -> Distillation:
    layer_map = _layer_map(stage, job.model, teacher) if stage.layers else None
    losses: dict[str, nn.Module] = {}
    weights = {}
    torch.manual_seed(job.recipe.seed)  # projections begin at random: alike, whatever ran before
    if layer_map is not None and stage.hidden_weight > 0:
        losses["hidden_states"] = _hidden_loss(stage, job.model, teacher, len(layer_map.pairs))
        weights["hidden_states"] = stage.hidden_weight
    if stage.attention_weight > 0:
        losses["attentions"] = AttentionMaps()
        weights["attentions"] = stage.attention_weight
    if stage.soft_weight > 0:
        losses[job.task.output] = job.task.soft_loss(stage)
        weights[job.task.output] = stage.soft_weight
    return Distillation(losses, weights, layer_map)


def distill(job: Job, stage: recipe.Distill) -> dict[str, Any]:
    """Learn from the teacher, without dropout: its answers were given without."""
    if stage.pruning is not None:
        job.keep_teacher()
    teacher = dense_model(job) if stage.teacher is None else job.task.load(stage.teacher)[0]
    device = next(job.model.parameters()).device
    teacher.to(device)
    with ExitStack() as shown:
        if "attentions" in stage.layers:
            for one in (job.model, teacher):
                shown.enter_context(attention_maps_of(one))
        objective = _objective(job, stage, teacher).to(device)
        model = Named(job.model, stage.layers).eval()
        return learn(job, model, _lessons(job, stage, teacher), _FollowTeacher(objective), stage)
