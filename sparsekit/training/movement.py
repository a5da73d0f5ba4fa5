"""Movement pruning while training: hard by a rising sparsity, soft by a penalty with a rising weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.pruning.movement import Movement
from sparsekit.pruning.schedule import Schedule


class GradualMovement:
    """Movement pruning by a schedule; pass it to `train` as `before_step`, and its scores as `parameter_groups`.

    Args:
        movement: result of `apply_movement`.
        schedule: sparsity of hard pruning at every step, or shape of the penalty's rise in soft pruning.
        penalty: final weight of the penalty, for soft pruning; None: hard pruning.

    >>> from sparsekit.pruning import apply_movement
    >>> model = nn.Sequential(nn.Linear(8, 8))
    >>> pruning = GradualMovement(apply_movement(model), Schedule(0.5, end=10, frequency=5))
    >>> [pruning(step) for step in (0, 3, 10)]
    [True, False, True]
    >>> pruning.movement.sparsity()
    0.5
    """

    def __init__(self, movement: Movement, schedule: Schedule, penalty: float | None = None) -> None:
        self.movement = movement
        self.schedule = schedule
        self.penalty = penalty
        self.weight = 0.0

    def __call__(self, step: int) -> bool:
        """Set sparsity or penalty weight for a step; return whether the sparsity changes (soft pruning: always)."""
        if self.penalty is not None:
            self.weight = self.penalty * (1.0 - self.schedule.left_at(step))
            return True
        self.movement.set_sparsity(self.schedule.sparsity_at(step))
        return self.schedule.prunes_at(step)


class Penalized(nn.Module):
    """A loss of model and batch, plus the penalty of soft movement pruning.

    Args:
        loss: the loss without penalty.
        pruning: provides the penalty and its current weight.
    """

    def __init__(self, loss: Any, pruning: GradualMovement) -> None:
        super().__init__()
        self.loss = loss
        self.pruning = pruning

    def forward(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Loss of a batch, a scalar."""
        loss: torch.Tensor = self.loss(model, batch)
        return loss + self.pruning.weight * self.pruning.movement.penalty()
