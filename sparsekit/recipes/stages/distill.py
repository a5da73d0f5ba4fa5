"""The stage `distill`: a student learns from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import torch
from pydantic import Field, model_validator
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
from sparsekit.distillation.teacher_outputs import TeacherOutputs, teacher_outputs
from sparsekit.introspect.transformer_blocks import transformer_blocks
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, inputs_of
from sparsekit.recipes.resuming.finished_stages import dense_model
from sparsekit.recipes.settings import MAX_TOKENS
from sparsekit.recipes.stages.distill_checks import check
from sparsekit.recipes.stages.stage import Before, StageKind
from sparsekit.recipes.stages.training import Training, train_model
from sparsekit.recipes.tasks.named_outputs import NamedOutputs, eager_attention
from sparsekit.training import autocast, first_alone

if TYPE_CHECKING:
    from sparsekit.recipes.job import Job

#: A batch and the teacher's outputs for it.
Lesson: TypeAlias = tuple[Batch, TeacherOutputs]


class Distill(Training):
    """Learn from the model before pruning, or from another one."""

    teacher: Path | None = None  # a model folder; None: the model before pruning
    temperature: float = Field(default=2.0, gt=0)
    alpha: float = Field(default=0.2, ge=0, le=1)  # weight of the labels
    soft_weight: float = Field(default=1.0, ge=0)  # weight of the teacher's logits or embeddings
    similarity_weight: float = Field(default=0.0, ge=0)  # embeddings: weight of the similarities within a batch
    hidden_weight: float = Field(default=1.0, ge=0)  # weight of every layer's hidden states; 0: off
    hidden_loss: Literal["square_head", "hidden_states"] = "square_head"  # the second projects between widths
    attention_weight: float = Field(default=0.0, ge=0)  # weight of every layer's attention maps
    layer_map: dict[str, str] | None = None  # student layer -> teacher layer, by name or re:; None: evenly spaced
    top_k: int = Field(default=64, ge=1, le=MAX_TOKENS)  # teacher logits to keep per token of a language model
    cache: bool = True  # keep the teacher's outputs on disk, for more than one epoch

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.soft_weight and not self.layers:
            raise ValueError("soft_weight, hidden_weight and attention_weight are all 0: there is nothing to follow")
        if self.similarity_weight and not self.soft_weight:
            raise ValueError("similarity_weight is a part of the loss that soft_weight weighs, which is 0")
        if self.layer_map is not None and not self.layers:
            raise ValueError("layer_map is of hidden states and attention maps: weigh one of them, or leave it out")
        return self

    @property
    def layers(self) -> tuple[str, ...]:
        """Per-layer outputs that the student follows."""
        weights = {"hidden_states": self.hidden_weight, "attentions": self.attention_weight}
        return tuple(name for name, weight in weights.items() if weight > 0)

    @property
    def needs_labels(self) -> bool:
        """The soft loss has a term for the labels."""
        return self.alpha > 0 and self.soft_weight > 0

    def forward_passes(self, job: Job) -> float:
        """Adds those of the teacher, in every epoch unless its outputs are cached."""
        asked = len(job.train) * (1.0 if self.cache else self.epochs)
        return super().forward_passes(job) + asked

    def update(self, before: Before) -> None:
        """A student that is pruned while training has its dense self as the teacher."""
        super().update(before)
        before.has_teacher |= self.pruning is not None


class _Lessons(Sequence[Lesson]):
    """Batches with the teacher's outputs."""

    def __init__(self, batches: Sequence[Batch], outputs: Callable[[int], TeacherOutputs]) -> None:
        self.batches = batches
        self.outputs = outputs

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: Any) -> Any:
        return self.batches[number], self.outputs(number)


class _FollowTeacher(nn.Module):
    """Distillation loss of one lesson."""

    def __init__(self, objective: Distillation) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, model: nn.Module, lesson: Lesson) -> torch.Tensor:
        batch, outputs = lesson
        loss: torch.Tensor = self.objective(model(**inputs_of(batch)), outputs, batch)
        return loss


def _asked_now(
    teacher: Teacher, precision: str, batch: Batch, keep: Sequence[str], top_k: int | None
) -> TeacherOutputs:
    """Uncached teacher outputs, in the precision of the student; cached ones are computed in float32."""
    with autocast(teacher, precision):
        return teacher_outputs(teacher, batch, keep, top_k)


def _lessons(job: Job, settings: Distill, teacher: Any) -> _Lessons:
    asked = Teacher(NamedOutputs(teacher, settings.layers))
    keep = [*settings.layers, *([job.task.output] if settings.soft_weight > 0 else [])]
    top_k = settings.top_k if job.recipe.task == "language" and settings.soft_weight > 0 else None
    inputs = [inputs_of(batch) for batch in job.train]
    if not settings.cache:
        return _Lessons(job.train, lambda number: _asked_now(asked, settings.precision, inputs[number], keep, top_k))
    with Progress[Batch](title=f"{job.stage}, ask the teacher", unit="batches", total=len(inputs)) as bar:
        cache = first_alone(
            lambda: TeacherCache(
                job.teacher_cache,
                asked,
                inputs,
                tokenizer=job.tokenizer,
                keep=keep,
                top_k=top_k,
                on_batch=lambda _: bar.update(),
            )
        )
    return _Lessons(job.train, cache.__getitem__)


def _objective(job: Job, settings: Distill, teacher: Any) -> Distillation:
    student = job.model
    layer_map = _layer_map(job, settings, teacher) if settings.layers else None
    losses: dict[str, nn.Module] = {}
    weights = {}
    torch.manual_seed(job.recipe.seed)  # for the projections, regardless of what ran before
    if layer_map is not None and settings.hidden_weight > 0:
        widths = student.config.hidden_size, teacher.config.hidden_size
        square = settings.hidden_loss == "square_head"
        losses["hidden_states"] = SquareHead() if square else HiddenStates(*widths, len(layer_map.pairs))
        weights["hidden_states"] = settings.hidden_weight
    if settings.attention_weight > 0:
        losses["attentions"] = AttentionMaps()
        weights["attentions"] = settings.attention_weight
    if settings.soft_weight > 0:
        names = ("temperature", "alpha", "similarity_weight")
        losses[job.task.output] = job.task.soft_loss(**{name: getattr(settings, name) for name in names})
        weights[job.task.output] = settings.soft_weight
    return Distillation(losses, weights, layer_map)


def _layer_map(job: Job, settings: Distill, teacher: Any) -> LayerMap:
    if settings.layer_map is not None:
        names = (list(transformer_blocks(model)) for model in (job.model, teacher))
        return LayerMap.by_name(settings.layer_map, *names)
    return LayerMap.even(job.model.config.num_hidden_layers, teacher.config.num_hidden_layers)


def distill(job: Job, settings: Distill) -> dict[str, Any]:
    """Learn from the teacher, without dropout, as its outputs were computed."""
    if settings.pruning is not None:
        job.keep_teacher()
    teacher = dense_model(job) if settings.teacher is None else job.task.load(settings.teacher)[0]
    device = next(job.model.parameters()).device
    teacher.to(device)
    with ExitStack() as eager:
        if "attentions" in settings.layers:
            for one in (job.model, teacher):
                eager.enter_context(eager_attention(one))
        objective = _objective(job, settings, teacher).to(device)
        model = NamedOutputs(job.model, settings.layers).eval()
        return train_model(job, model, _lessons(job, settings, teacher), _FollowTeacher(objective), settings)


STAGE = StageKind(Distill, distill, lambda row: "distillation", check)
