"""Movement pruning while training: hard by a rising sparsity, soft by a penalty with a rising weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.pruning.movement import Movement
from sparsekit.pruning.schedule import Schedule


class GradualMovement:
    """Movement pruning by a schedule; give it to `train` as `before_step`, and its scores as `parameter_groups`.

    Args:
        movement: what `apply_movement` gave.
        schedule: hard pruning follows its sparsity at every step; soft pruning the shape of its rise.
        penalty: weight of the scores' penalty at the end of the rise, for soft pruning; None: hard pruning.

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
        """Set sparsity or penalty weight for a step; returns whether the sparsity changes (soft pruning: always)."""
        if self.penalty is not None:
            self.weight = self.penalty * (1.0 - self.schedule.left_at(step))
            return True
        self.movement.set_sparsity(self.schedule.sparsity_at(step))
        return self.schedule.prunes_at(step)


class Penalized(nn.Module):
    """A loss of model and batch, with the penalty of soft movement pruning added.

    Args:
        loss: the loss without penalty.
        pruning: whose penalty, at the weight that it has now.
    """

    def __init__(self, loss: Any, pruning: GradualMovement) -> None:
        super().__init__()
        self.loss = loss
        self.pruning = pruning

    def forward(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Loss of a batch, a scalar."""
        loss: torch.Tensor = self.loss(model, batch)
        return loss + self.pruning.weight * self.pruning.movement.penalty()
