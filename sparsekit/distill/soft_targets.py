"""Soft targets: the student learns the teacher's whole distribution (Hinton et al., arXiv 1503.02531, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class SoftTargets(nn.Module):
    """Weighted sum of the hard-label loss and the divergence from the teacher's softened distribution.

    `alpha * CE(student, labels) + (1 - alpha) * temperature^2 * KL(teacher / temperature || student / temperature)`

    Args:
        temperature: divides the logits of both before the softmax, above 0.
        alpha: weight of the hard-label term, in [0, 1].

    Raises:
        ValueError: an argument is out of range.

    >>> loss = SoftTargets(temperature=2.0, alpha=0.0)
    >>> logits = torch.tensor([[1.0, -1.0]])
    >>> float(loss(logits, logits, torch.tensor([0])))
    0.0
    """

    def __init__(self, temperature: float = 2.0, alpha: float = 0.2) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}")
        self.temperature = temperature
        self.alpha = alpha

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch.

        Args:
            student: logits, shape [batch, classes].
            teacher: logits, same shape; no gradient flows to them.
            labels: class numbers, int64, shape [batch].

        Returns:
            A scalar.

        Raises:
            ValueError: the two have different shapes: other classes, or another vocabulary.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"student and teacher logits must have the same shape, got {list(student.shape)} and "
                f"{list(teacher.shape)}; teacher and student need the same classes"
            )
        soft = F.kl_div(
            F.log_softmax(student / self.temperature, dim=-1),
            F.log_softmax(teacher.detach() / self.temperature, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
        hard = F.cross_entropy(student, labels)
        return self.alpha * hard + (1 - self.alpha) * self.temperature**2 * soft
