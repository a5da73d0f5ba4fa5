"""Prune while training: a schedule says when and how far."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sparsekit.pruning.layers import group_prunable, weight_of
from sparsekit.pruning.parametrization import apply_mask, mask_of
from sparsekit.pruning.schedule import Schedule
from sparsekit.pruning.split_model import split_modules
from sparsekit.pruning.weights import prune


class GradualPruning:
    """Prunes a model anew at the steps of a schedule; give it to `train` as `before_step`.

    Args:
        model: what is trained.
        schedule: when, and how far.
        arguments: further arguments of `prune`, such as `scope`, `ignore`, `mask_structure`, `criterion`.

    >>> model = nn.Linear(8, 8)
    >>> pruning = GradualPruning(model := nn.Sequential(model), Schedule(0.5, end=10, frequency=5))
    >>> for step in range(11):
    ...     _ = pruning(step)
    >>> float((model[0].weight == 0).float().mean())
    0.5
    """

    def __init__(self, model: nn.Module, schedule: Schedule, **arguments: Any) -> None:
        self.model = model
        self.schedule = schedule
        self.arguments = arguments

    def add_masks(self) -> None:
        """Give layers without a mask one that keeps every weight, as sharding needs before training begins."""
        chosen = (self.arguments.get("targets", ("Linear",)), self.arguments.get("ignore", ()))
        with split_modules(self.model):
            for first, *others in (list(group.values()) for group in group_prunable(self.model, *chosen)):
                if mask_of(first) is None:
                    apply_mask(first, torch.ones_like(weight_of(first), dtype=torch.bool), *others)

    def __call__(self, step: int) -> bool:
        """What belongs before a step; whether masks changed."""
        if not self.schedule.prunes_at(step):
            return False
        prune(self.model, self.schedule.sparsity_at(step), **self.arguments)
        return True
