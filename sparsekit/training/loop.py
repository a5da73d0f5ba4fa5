"""A plain training loop for any module: AdamW, accumulation, early stopping, checkpoints that resume bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from sparsekit.progress import Progress
from sparsekit.pruning.masks.parametrization import masked_parameters
from sparsekit.training.checkpoint import load_model_state
from sparsekit.training.gradual import GradualPruning
from sparsekit.training.movement import GradualMovement
from sparsekit.training.optimizer import ParameterGroup
from sparsekit.training.processes import process_count, process_number
from sparsekit.training.run import Loss, Objective, Run, TrainReport
from sparsekit.training.settings import TrainSettings
from sparsekit.training.sharding import gathered, shard, whole_tensors

T = TypeVar("T")


def train(
    model: nn.Module,
    batches: Sequence[T] | Iterable[T],
    loss: Loss[T],
    settings: TrainSettings | None = None,
    *,
    before_step: Callable[[int], object] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | str | None = None,
    log: Path | str | None = None,
    parameter_groups: Sequence[ParameterGroup] = (),
    title: str = "train",
) -> TrainReport:
    """Minimize a loss over batches, in place. Masks of `prune` stay.

    The model is trained in its current mode: call `model.train()` first for dropout, `model.eval()` for none, as in
    distillation. In processes started by `torchrun`, after `sparsekit.training.join_group()`, every process takes a
    share of the batches and gradients are averaged: a step uses `accumulate` batches for each process.

    Args:
        model: any module; parameters that require gradients are trained.
        batches: a sequence, which is shuffled in every epoch, or a sized iterable such as a `DataLoader`.
        loss: function of model and batch that returns a scalar; if it is a module, its parameters (such as projections)
            are trained too.
        settings: settings of the run; None for `TrainSettings()`.
        before_step: called with the number of every step before the step, such as `GradualPruning`. If it returns True,
            masks changed: the optimizer state of pruned weights and the best score are reset.
        evaluate: computes the model's score, higher is better, in eval mode without gradients; called every
            `evaluate_every` steps and at the end.
        checkpoint: file to write checkpoints to; the run resumes from it if it exists.
        log: file for a JSON line for every step and evaluation: loss, learning rate, sparsity, score. Lines of an
            earlier run that are not part of this one are dropped.
        parameter_groups: (parameters, learning rate) of parameters with a separate rate, such as the scores of movement
            pruning; the rate follows the same schedule, without weight decay.
        title: title of the progress bar.

    Returns:
        Losses and scores. With `patience`, the model gets the weights of the best score.

    Raises:
        ValueError: there are no batches or nothing to train, `before_step` does not support sharded weights, or the
            checkpoint is damaged or of another run.
        FloatingPointError: the loss is not finite.

    >>> model = nn.Linear(1, 1)
    >>> batches = [(torch.tensor([[x]]), torch.tensor([[2 * x]])) for x in (1.0, 2.0, 3.0)]
    >>> report = train(
    ...     model,
    ...     batches,
    ...     lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
    ...     TrainSettings(epochs=40, learning_rate=0.1),
    ... )
    >>> report.losses[-1] < 0.1
    True
    """
    settings = TrainSettings() if settings is None else settings
    if len(batches) == 0:  # type: ignore[arg-type]
        raise ValueError("there are no batches to train on")
    if settings.patience and evaluate is None:
        raise ValueError("patience waits for a better score: give evaluate")
    objective: Objective[T] = Objective(model, loss)
    trained, before_step, parameter_groups = _spread(objective, settings, before_step, parameter_groups)
    run = Run(trained, batches, settings, None if log is None else Path(log), parameter_groups)
    torch.manual_seed(settings.seed + process_number())
    path = None if checkpoint is None else Path(checkpoint)
    run.start(path)
    _take_steps(run, before_step, evaluate, path, title)
    if run.best or trained is not objective:
        load_model_state(objective, run.best or whole_tensors(trained.state_dict()))
        objective.to(next(trained.parameters()).device)
    return run.report


def _spread(
    objective: Objective[T], settings: TrainSettings, before_step: Any, parameter_groups: Sequence[ParameterGroup]
) -> tuple[Objective[T], Any, Sequence[ParameterGroup]]:
    """The module to train: a sharded copy if `shard` is set, since sharding cannot be undone.

    Raises:
        ValueError: the kind of pruning does not support sharded weights.
    """
    if not settings.shard or process_count() == 1:
        return objective, before_step, parameter_groups
    if not (before_step is None or isinstance(before_step, GradualPruning | GradualMovement)):
        raise ValueError("shard trains a copy, which before_step must know: give GradualPruning or GradualMovement")
    if isinstance(before_step, GradualMovement) and before_step.penalty is not None:
        raise ValueError("soft movement pruning does not work on sharded weights; give a sparsity, or leave out shard")
    if isinstance(before_step, GradualPruning) and before_step.method.needs_batches:
        raise ValueError("sharded weights are pruned by magnitude alone; leave out criterion, or shard")
    copied, before_step, parameter_groups = copy.deepcopy((objective.cpu(), before_step, list(parameter_groups)))
    if isinstance(before_step, GradualPruning):
        before_step.add_masks()
    names = {id(parameter): name for name, parameter in copied.named_parameters()}
    shard(copied)
    sharded = dict(copied.named_parameters())
    groups = [([sharded[names[id(one)]] for one in parameters], rate) for parameters, rate in parameter_groups]
    return copied, before_step, groups


def _take_steps(
    run: Run[T],
    before_step: Callable[[int], object] | None,
    evaluate: Callable[[nn.Module], float] | None,
    checkpoint: Path | None,
    title: str,
) -> None:
    forward = _forward_of(run.objective)
    masked = _masked(run.objective)
    shares = run.shares()
    hidden = process_number() != 0
    done = run.report.steps
    with Progress[T](title=title, unit="steps", total=run.steps, initial=done, hidden=hidden) as bar:
        while not run.is_over:
            if before_step is not None and _prepare_step(run, before_step):
                run.masks_changed()
            if _masked(run.objective) != masked:  # gradient hooks on a weight are lost when its first mask is added
                forward, masked = _forward_of(run.objective), _masked(run.objective)
            loss = run.step(forward, next(shares))
            bar.say(f"loss {loss:.3g}" + (f", {run.sparsity:.0%} zeros" if run.sparsity else ""))
            bar.update()
            done, every = run.report.steps, run.settings.evaluate_every
            if evaluate is not None and (done == run.steps or (every and done % every == 0)):
                run.score(evaluate)
            if checkpoint is not None and (run.is_over or run.is_due()):
                run.save(checkpoint)


def _prepare_step(run: Run[T], before_step: Callable[[int], object]) -> bool:
    """Call `before_step`, with whole weights if it prunes; return whether masks changed."""
    prunes = isinstance(before_step, GradualPruning) and before_step.schedule.prunes_at(run.report.steps)
    with gathered(run.objective) if prunes else nullcontext():
        return before_step(run.report.steps) is True


def _forward_of(objective: nn.Module) -> nn.Module:
    if process_count() == 1 or isinstance(objective, FSDPModule):
        return objective
    return DistributedDataParallel(objective, find_unused_parameters=True)  # such as an unused pooler


def _masked(model: nn.Module) -> int:
    return sum(len(masked_parameters(module)) for module in model.modules())
