"""What the stages of a recipe do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn
from tqdm import tqdm

from sparsekit.compress import recipe
from sparsekit.compress.batches import Batch, inputs_of
from sparsekit.compress.job import Job
from sparsekit.compress.removal import make_zeros, remove_heads, remove_neurons, shorten
from sparsekit.compress.tasks import Named
from sparsekit.conversion import convert
from sparsekit.distill import Distillation, LayerMap, SquareHead, Teacher, TeacherCache
from sparsekit.distill.teacher_cache import Answers, ask
from sparsekit.pruning import finalize, keep_zeros
from sparsekit.selection import select
from sparsekit.training import GradualPruning, TrainReport, first_alone, train
from sparsekit.training.processes import process_count

#: A batch and the teacher's answers to it.
Lesson: TypeAlias = tuple[Batch, Answers]


def _named(model: Any, patterns: Sequence[str] | None) -> list[nn.Module]:
    """The modules that patterns name; None: the embeddings of tokens."""
    if patterns is None:
        return [model.get_input_embeddings()]
    return list(select(model, patterns).values()) if patterns else []


@contextmanager
def _frozen(model: Any, patterns: Sequence[str] | None) -> Iterator[None]:
    """Keep the parameters of modules from training."""
    held = [one for module in _named(model, patterns) for one in module.parameters() if one.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def _train(
    job: Job, model: nn.Module, batches: Sequence[Any], loss: Any, stage: Any, before_step: Any = None
) -> TrainReport:
    path = job.work / f"{job.stage}.safetensors"
    keep_zeros(job.blocks())
    with _frozen(job.model, stage.freeze):
        return train(
            model,
            batches,
            loss,
            stage.settings(job.recipe.seed),
            before_step=before_step,
            evaluate=(lambda one: job.task.better(job.scores_of(one))) if stage.evaluate_every else None,
            checkpoint=path,
            log=path.with_suffix(".jsonl"),
            title=job.stage,
        )


def _told(report: TrainReport) -> dict[str, Any]:
    last = report.losses[-20:]
    return {"steps": report.steps, "loss": sum(last) / len(last)}


def finetune(job: Job, stage: recipe.Finetune) -> dict[str, Any]:
    """Train on labels, with dropout; batches without any are left out."""
    model = Named(job.model).train()
    report = _train(job, model, job.labelled(), job.task.loss, stage)
    model.eval()
    return _told(report)


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


def _lessons(job: Job, stage: recipe.Distil, teacher: Any) -> _Lessons:
    asked = Teacher(Named(teacher, layers=stage.hidden_weight > 0))
    keep = ["hidden_states"] * (stage.hidden_weight > 0) + [job.task.output] * (stage.soft_weight > 0)
    top_k = stage.top_k if job.recipe.task == "language" and stage.soft_weight > 0 else None
    inputs = [inputs_of(batch) for batch in job.train]
    if not stage.cache:
        return _Lessons(job.train, lambda number: ask(asked, inputs[number], keep, top_k))
    folder = job.work / f"{job.stage}-teacher"
    with tqdm(total=len(inputs), desc="ask the teacher", unit="batch") as bar:
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


def _objective(job: Job, stage: recipe.Distil, teacher: Any) -> Distillation:
    losses: dict[str, nn.Module] = {}
    if stage.hidden_weight > 0:
        losses["hidden_states"] = SquareHead()
    if stage.soft_weight > 0:
        losses[job.task.output] = job.task.soft_loss(stage.temperature, stage.alpha)
    weights = {"hidden_states": stage.hidden_weight, job.task.output: stage.soft_weight}
    own, other = job.model.config.num_hidden_layers, teacher.config.num_hidden_layers
    layer_map = LayerMap.even(own, other) if stage.hidden_weight > 0 and own != other else None
    return Distillation(losses, {name: weights[name] for name in losses}, layer_map)


def _gradual(job: Job, stage: recipe.Distil) -> GradualPruning | None:
    gradual = stage.gradual
    if gradual is None:
        return None
    schedule = gradual.schedule(stage.settings(job.recipe.seed).steps_of(len(job.train), process_count()))
    chosen = {"scope": gradual.scope, "mask_structure": gradual.mask_structure, "ignore": job.outside_blocks()}
    return GradualPruning(job.model, schedule, **chosen)


def distil(job: Job, stage: recipe.Distil) -> dict[str, Any]:
    """Learn from the teacher, without dropout: its answers were given without."""
    if stage.gradual is not None:
        job.keep_teacher()
    teacher = job.teacher if stage.teacher is None else job.task.load(stage.teacher)[0]
    teacher.to(next(job.model.parameters()).device)
    lessons = _lessons(job, stage, teacher)
    model = Named(job.model, layers=stage.hidden_weight > 0).eval()
    report = _train(job, model, lessons, _FollowTeacher(_objective(job, stage, teacher)), stage, _gradual(job, stage))
    return _told(report)


def swap(job: Job, stage: recipe.Convert) -> dict[str, Any]:
    """Swap the pruned layers for sparse ones, on the CPU."""
    finalize(job.model.cpu())
    report = convert(
        job.model,
        ignore=job.outside_blocks(),
        tokens=stage.tokens,
        min_sparsity=stage.min_sparsity,
        values=stage.values,
        error_budget=stage.error_budget,
        batches=job.sample(64) if stage.error_budget is not None else (),
    )
    found = report.to_dict()
    return {name: found[name] for name in ("converted", "fused", "bytes_before", "bytes_after")}


def evaluate(job: Job, stage: recipe.Evaluate) -> dict[str, Any]:
    """Score the model as it is now."""
    del stage
    return job.scores()


#: What each stage of a recipe does.
STAGES: dict[str, Callable[[Job, Any], dict[str, Any]]] = {
    "finetune": finetune,
    "shorten": shorten,
    "prune_neurons": remove_neurons,
    "prune_heads": remove_heads,
    "prune": make_zeros,
    "distil": distil,
    "convert": swap,
    "evaluate": evaluate,
}
