"""Settings of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsekit.training.precision import PRECISIONS


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `train`: AdamW, a linear warm-up and a linear decay to zero.

    Args:
        epochs: passes over the batches; fractions are allowed.
        learning_rate: learning rate after warm-up.
        warmup: fraction of all steps in which the learning rate rises, in [0, 1].
        weight_decay: AdamW's weight decay, for parameters with two or more dimensions.
        max_gradient_norm: norm to clip gradients to.
        accumulate: batches per step, whose gradients are averaged.
        precision: "float32", or "bfloat16" for autocast in the forward pass, faster on processors that support it.
        evaluate_every: steps between evaluations; 0: only at the end.
        patience: stop after this many evaluations without a better score, and keep the best weights; 0: never.
        patience_from: step from which evaluations count for `patience`, such as the last pruning step.
        checkpoint_minutes: minutes between checkpoints, if there is a checkpoint file; 0: after every step.
        shard: shard weights, gradients and optimizer state over the processes (FSDP2); no effect with one process. A
            copy is trained, so a loss must use the model passed to it; the model itself stays on the CPU in every
            process. Whole weights are gathered temporarily when a schedule prunes.
        seed: seed of the batch order and of dropout.

    Raises:
        ValueError: an argument is out of range.
    """

    epochs: float = 1.0
    learning_rate: float = 1e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    evaluate_every: int = 0
    patience: int = 0
    patience_from: int = 0
    checkpoint_minutes: float = 2.0
    shard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "max_gradient_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        for name in ("evaluate_every", "patience", "patience_from", "checkpoint_minutes"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be in [0, 1], got {self.warmup}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.patience and not self.evaluate_every:
            raise ValueError("patience counts evaluations: set evaluate_every too")

    def steps_of(self, batches: int, processes: int = 1) -> int:
        """Number of steps, given the batches per epoch."""
        return max(1, round(self.epochs * batches / (self.accumulate * processes)))

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Learning rate at a step, out of `steps`.

        >>> settings = TrainSettings(learning_rate=1.0, warmup=0.5)
        >>> [settings.learning_rate_at(step, 4) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (steps - step) / max(1, steps - rising)
