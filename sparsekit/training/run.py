"""The state of a training run: steps, evaluations, checkpoints, log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from sparsekit.pruning.masks.optimizer_state import drop_optimizer_state
from sparsekit.pruning.movement import masked_sparsity
from sparsekit.training.checkpoint import load_checkpoint, read_progress, read_tensors, save_checkpoint, write_tensors
from sparsekit.training.log import TrainLog
from sparsekit.training.optimizer import ParameterGroup, optimizer_for
from sparsekit.training.order import stream
from sparsekit.training.precision import autocast
from sparsekit.training.processes import from_all, process_count, process_number, same_everywhere
from sparsekit.training.settings import TrainSettings
from sparsekit.training.sharding import averaged, gathered, whole_tensors

T = TypeVar("T")

#: Loss of model and batch, a scalar. Parameters of a loss module are trained too.
Loss = Callable[[nn.Module, T], torch.Tensor]


@dataclass
class TrainReport:
    """Losses and scores of a run."""

    steps: int = 0
    losses: list[float] = field(default_factory=list)  # of every step, mean over its batches
    scores: list[tuple[int, float]] = field(default_factory=list)  # (steps done, score)
    stopped_early: bool = False

    @property
    def best(self) -> float | None:
        """The best score; None without evaluations."""
        return max((score for _, score in self.scores), default=None)


class Objective(nn.Module, Generic[T]):
    """Model and loss as one module, so that one distributed wrapper covers the parameters of both."""

    def __init__(self, model: nn.Module, loss: Loss[T]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: T) -> torch.Tensor:
        """Loss of a batch."""
        return self.loss(self.model, batch)


def _best_path(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}-best.safetensors")


class Run(Generic[T]):
    """The state of one call of `train`."""

    def __init__(
        self,
        objective: Objective[T],
        batches: Sequence[T] | Iterable[T],
        settings: TrainSettings,
        log: Path | None,
        own_rates: Sequence[ParameterGroup] = (),
    ) -> None:
        self.objective = objective
        self.settings = settings
        self.log = TrainLog(log if process_number() == 0 else None)
        self.optimizer = optimizer_for(objective, settings, own_rates)
        self.batches = batches
        self.together = settings.accumulate * process_count()
        self.steps = settings.steps_of(len(batches), process_count())  # type: ignore[arg-type]
        self.report = TrainReport()
        self.best: dict[str, torch.Tensor] = {}
        self.best_score: float | None = None  # since masks last changed
        self.without_gain = 0
        self.sparsity = masked_sparsity(objective.model)
        self.saved_at = time.monotonic()

    def start(self, checkpoint: Path | None) -> None:
        """Resume from a checkpoint if it exists, and drop later lines of the log.

        Raises:
            ValueError: the checkpoint is damaged, of another run or differs between processes, or the log is not one.
        """
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)
        starts = [int(one) for one in from_all(torch.tensor(self.report.steps))]
        if len(set(starts)) > 1:
            raise ValueError(
                f"the processes would go on from steps {', '.join(map(str, starts))}: have {checkpoint} on a disk that "
                "all of them read"
            )
        self.log.cut_after(self.report.steps)
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether a checkpoint is due; the same in all processes."""
        due = time.monotonic() - self.saved_at >= 60.0 * self.settings.checkpoint_minutes
        return bool(same_everywhere(float(due)))

    def _resume(self, checkpoint: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            ValueError: it is damaged or of another run.
        """
        progress = read_progress(checkpoint)
        if progress["processes"] != process_count():
            raise ValueError(
                f"{checkpoint} is of a run of {progress['processes']} processes, and this one has {process_count()}; "
                "start as many, or delete it to start anew"
            )
        if progress["settings"] != asdict(self.settings) or progress["steps"] != self.steps:
            raise ValueError(f"{checkpoint} is of a run with other settings or data; delete it to start anew")
        load_checkpoint(checkpoint, self.objective, self.optimizer)
        found = progress["report"]
        self.report = TrainReport(found["steps"], found["losses"], [tuple(one) for one in found["scores"]])
        self.report.stopped_early = found["stopped_early"]
        self.without_gain, self.best_score = progress["without_gain"], progress["best_score"]
        if progress["has_best"]:
            self.best = read_tensors(_best_path(checkpoint))[0]
        self.sparsity = masked_sparsity(self.objective.model)

    def save(self, checkpoint: Path) -> None:
        """Write a checkpoint; all processes take part."""
        progress = {"settings": asdict(self.settings), "steps": self.steps, "report": asdict(self.report)}
        progress["processes"] = process_count()
        progress |= {"without_gain": self.without_gain, "best_score": self.best_score, "has_best": bool(self.best)}
        if self.best and process_number() == 0:
            write_tensors(_best_path(checkpoint), self.best)
        save_checkpoint(checkpoint, self.objective, self.optimizer, progress)
        self.saved_at = time.monotonic()

    def shares(self) -> Iterator[list[T]]:
        """This process's batches for each remaining step."""
        left = stream(self.batches, self.settings.seed, self.report.steps * self.together)
        while True:
            yield list(islice(left, self.together))[process_number() :: process_count()]

    def step(self, forward: nn.Module, share: Sequence[T]) -> float:
        """Take an optimizer step on this process's batches; return their mean loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        self.optimizer.zero_grad()
        rate = self.settings.learning_rate_at(self.report.steps, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]
        total = 0.0
        for number, batch in enumerate(share):
            last = number == len(share) - 1
            with averaged(forward, last):
                with autocast(self.objective, self.settings.precision):
                    loss = forward(batch) / len(share)
                loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total} at step {self.report.steps}; lower the learning rate")
        nn.utils.clip_grad_norm_(self.objective.parameters(), self.settings.max_gradient_norm)
        self.optimizer.step()
        self.report.steps += 1
        self.report.losses.append(total)
        self.log.write(self.sparsity, {"step": self.report.steps, "loss": total, "learning_rate": rate})
        return total

    def score(self, evaluate: Callable[[nn.Module], float]) -> None:
        """Evaluate in eval mode; keep the best weights if training may stop early."""
        model = self.objective.model
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        with torch.no_grad(), gathered(self.objective, whole=False):
            score = same_everywhere(evaluate(model))
        for module, mode in modes:
            module.training = mode
        better = math.isfinite(score) and (self.best_score is None or score > self.best_score)
        self.report.scores.append((self.report.steps, score))
        counts = self.report.steps > self.settings.patience_from
        self.without_gain = self.without_gain + 1 if counts and not better else 0
        if better:
            self.best_score = score
        if better and self.settings.patience:
            self.best = whole_tensors(self.objective.state_dict())
        self.report.stopped_early = bool(self.settings.patience) and self.without_gain >= self.settings.patience
        self.log.write(self.sparsity, {"step": self.report.steps, "score": score})

    def masks_changed(self) -> None:
        """Reset the optimizer state of pruned weights, and the best score, which belongs to a less sparse model."""
        drop_optimizer_state(self.optimizer, self.objective)
        self.best, self.best_score, self.without_gain = {}, None, 0
        self.sparsity = masked_sparsity(self.objective.model)

    @property
    def is_over(self) -> bool:
        """Whether the run is finished."""
        return self.report.steps >= self.steps or self.report.stopped_early
