"""Gradual pruning while training, by a sparsity schedule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.layers import group_prunable, weight_of
from sparsekit.pruning.masks.parametrization import apply_mask, mask_of
from sparsekit.pruning.methods import check_needs, find_method, weight_methods
from sparsekit.pruning.schedule import Schedule
from sparsekit.pruning.split_model import split_modules
from sparsekit.pruning.weights import prune


class GradualPruning:
    """Prunes a model at the steps of a schedule; pass it to `train` as `before_step`.

    Args:
        model: the trained model.
        schedule: sparsity by step.
        batches: calibration batches, as in `prune`.
        criterion: as in `prune`.
        targets: as in `prune`.
        ignore: as in `prune`.
        arguments: further arguments of `prune`, such as `scope`, `mask_structure`, `loss`.

    Raises:
        ValueError: the criterion is unknown, or lacks the batches that it needs.

    >>> model = nn.Sequential(nn.Linear(8, 8))
    >>> pruning = GradualPruning(model, Schedule(0.5, end=10, frequency=5))
    >>> for step in range(11):
    ...     _ = pruning(step)
    >>> float((model[0].weight == 0).float().mean())
    0.5
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        batches: Sequence[Any] = (),
        *,
        criterion: str = "magnitude",
        targets: Iterable[str] = ("Linear",),
        ignore: Iterable[str] = (),
        **arguments: Any,
    ) -> None:
        self.method = find_method(criterion, weight_methods())
        check_needs(self.method, batches, arguments.get("loss"))
        self.model = model
        self.schedule = schedule
        self.batches = batches
        self.targets = targets
        self.ignore = ignore
        self.arguments = arguments

    def add_masks(self) -> None:
        """Add masks that keep every weight to layers without one, as sharding requires before training."""
        with split_modules(self.model):
            groups = group_prunable(self.model, self.targets, self.ignore)
            for first, *others in (list(group.values()) for group in groups):
                if mask_of(first) is None:
                    apply_mask(first, torch.ones_like(weight_of(first), dtype=torch.bool), *others)

    def __call__(self, step: int) -> bool:
        """Prune if the schedule prunes before this step; return whether masks changed."""
        if not self.schedule.prunes_at(step):
            return False
        chosen: dict[str, Any] = {"criterion": self.method.name, "targets": self.targets, "ignore": self.ignore}
        prune(self.model, self.schedule.sparsity_at(step), self.batches, **chosen, **self.arguments)
        return True
