"""`Teacher`: a frozen model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Teacher(nn.Module):
    """A frozen model: always in eval mode, without gradients, its parameters not trainable.

    Args:
        model: any model; it is frozen in place.

    >>> teacher = Teacher(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    >>> teacher.train().model.training
    False
    >>> teacher(torch.ones(1, 2)).requires_grad
    False
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode: training a module around the teacher must not turn its dropout on."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs, without gradients.

        Raises:
            ValueError: an argument requires gradients, and so comes from a student.
        """
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor) and value.requires_grad:
                raise ValueError("a teacher's input must not come from a student: it carries gradients; detach it")
        return self.model(*args, **kwargs)
