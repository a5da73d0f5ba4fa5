"""Soft targets: the student matches the teacher's class distribution (Hinton et al., arXiv 1503.02531, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def _check(temperature: float, alpha: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")


def _with_labels(student: torch.Tensor, labels: torch.Tensor | None, alpha: float, soft: torch.Tensor) -> torch.Tensor:
    """`alpha` times the hard-label loss plus `1 - alpha` times the soft one."""
    if alpha == 0:
        return soft
    if labels is None:
        raise ValueError(f"alpha = {alpha} weighs the labels' term, and there are no labels; set alpha to 0")
    if bool((labels == -100).all()):
        return (1 - alpha) * soft
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft


class SoftTargets(nn.Module):
    """Weighted sum of the cross-entropy on labels and the KL divergence from the teacher's softened distribution.

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
        _check(temperature, alpha)
        self.temperature = temperature
        self.alpha = alpha

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Mean loss of a batch.

        Args:
            student: logits, shape [batch, classes].
            teacher: logits, same shape, of any floating type; no gradient flows to them.
            labels: class numbers, int64, shape [batch], -100 where there is none; not needed where `alpha` is 0.

        Returns:
            A scalar.

        Raises:
            ValueError: the two have different shapes: other classes, or another vocabulary; labels are missing.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"student and teacher logits must have the same shape, got {list(student.shape)} and "
                f"{list(teacher.shape)}; teacher and student need the same classes"
            )
        soft = F.kl_div(
            F.log_softmax(student / self.temperature, dim=-1),
            F.log_softmax(teacher.detach().to(student.dtype) / self.temperature, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
        return _with_labels(student, labels, self.alpha, self.temperature**2 * soft)


class TopSoftTargets(nn.Module):
    """`SoftTargets` from the teacher's top-k logits alone, as `TeacherCache(top_k=...)` keeps them.

    The teacher's distribution is over these classes, the student's over all: probability on other classes is penalized.

    Args:
        temperature: divides the logits of both before the softmax, above 0.
        alpha: weight of the hard-label term, in [0, 1].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, temperature: float = 2.0, alpha: float = 0.2) -> None:
        super().__init__()
        _check(temperature, alpha)
        self.temperature = temperature
        self.alpha = alpha

    def forward(
        self,
        student: torch.Tensor,
        top_logits: torch.Tensor,
        top_indices: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss over all rows but those whose label is -100, which language models leave out.

        Args:
            student: logits, shape [..., classes].
            top_logits: the teacher's largest, shape [..., k], of any floating type.
            top_indices: their classes, whole numbers of the same shape.
            labels: class numbers, int64, shape [...]; None counts all rows, where `alpha` is 0.

        Returns:
            A scalar.

        Raises:
            ValueError: shapes do not fit, or a class is not one of the student's: another vocabulary.
        """
        if top_logits.shape != top_indices.shape or top_logits.shape[:-1] != student.shape[:-1]:
            raise ValueError(
                "top_logits and top_indices must have the student's shape but for the last dimension, got "
                f"{list(top_logits.shape)}, {list(top_indices.shape)} and {list(student.shape)}"
            )
        if top_indices.numel() and int(top_indices.max()) >= student.shape[-1]:
            raise ValueError(
                f"the teacher has a class {int(top_indices.max())}, the student only {student.shape[-1]} classes; they "
                "need the same vocabulary"
            )
        teacher = F.log_softmax(top_logits.detach().to(student.dtype) / self.temperature, dim=-1)
        student_log = F.log_softmax(student / self.temperature, dim=-1).gather(-1, top_indices.long())
        divergence = (teacher.exp() * (teacher - student_log)).sum(-1)
        counted = torch.ones_like(divergence, dtype=torch.bool) if labels is None else labels != -100
        soft = (divergence * counted).sum() / counted.sum().clamp(min=1)
        flat = None if labels is None else labels.flatten()
        return _with_labels(student.flatten(0, -2), flat, self.alpha, self.temperature**2 * soft)
