"""A plain training loop for any module: AdamW, accumulation, early stopping, checkpoints that resume bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from sparsekit.pruning.parametrization import mask_of
from sparsekit.training.processes import process_count, process_number
from sparsekit.training.run import Loss, Objective, Run, TrainReport
from sparsekit.training.settings import TrainSettings

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
    title: str = "train",
) -> TrainReport:
    """Minimise a loss over batches, in place. Masks of `prune` stay.

    The model is trained in the mode it is in: call `model.train()` first for dropout, `model.eval()` for none, as when
    a student follows a teacher's answers. In the processes that `torchrun` starts, after
    `sparsekit.training.join_group()`, every process takes its part of the batches and gradients are averaged: as many
    batches count for a step as with `accumulate` times as many in one process.

    Args:
        model: any module; its parameters that require gradients are trained.
        batches: a sequence, which is shuffled in every epoch, or anything else with a length that can be iterated
            again, such as a `DataLoader`.
        loss: called with the model and a batch, returns a scalar; a module's own parameters (such as projections) are
            trained too.
        settings: how much; `TrainSettings()` if None.
        before_step: called with the number of every step before it is taken, such as `GradualPruning`. True says that
            masks changed: the optimiser then forgets what it kept of the weights that are gone, and the best score is
            looked for anew.
        evaluate: a score of the model, higher is better, in eval mode without gradients; asked every
            `evaluate_every` steps and at the end.
        checkpoint: a file from which the run goes on when it is there, and which is written as it goes.
        log: a file that gets a line of JSON for every step and evaluation: loss, learning rate, sparsity, score.
        title: of the progress bar.

    Returns:
        Losses and scores. With `patience`, the model has the weights of the best score.

    Raises:
        ValueError: there are no batches, nothing to train, or the checkpoint is damaged or of another run.
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
    run = Run(Objective(model, loss), batches, settings, None if log is None else Path(log))
    torch.manual_seed(settings.seed + process_number())
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        run.resume(path)
    _take_steps(run, before_step, evaluate, path, title)
    if run.best:
        run.objective.load_state_dict(run.best)
    return run.report


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
    with tqdm(total=run.steps, initial=run.report.steps, desc=title, unit="step", disable=hidden) as bar:
        while not run.is_over:
            if before_step is not None and before_step(run.report.steps) is True:
                run.masks_changed()
            if _masked(run.objective) != masked:  # what watches a weight's gradient does not survive its first mask
                forward, masked = _forward_of(run.objective), _masked(run.objective)
            loss = run.step(forward, next(shares))
            bar.set_postfix(
                loss=f"{loss:.3f}",
                rate=f"{run.optimizer.param_groups[0]['lr']:.1e}",
                sparsity=f"{run.sparsity:.2f}",
                refresh=False,
            )
            bar.update()
            done, every = run.report.steps, run.settings.evaluate_every
            if evaluate is not None and (done == run.steps or (every and done % every == 0)):
                run.score(evaluate)
            if checkpoint is not None and (run.is_over or done % run.settings.checkpoint_every == 0):
                run.save(checkpoint)


def _forward_of(objective: nn.Module) -> nn.Module:
    if process_count() == 1:
        return objective
    return DistributedDataParallel(objective, find_unused_parameters=True)  # a pooler that no loss reads


def _masked(model: nn.Module) -> int:
    return sum(mask_of(module) is not None for module in model.modules())
