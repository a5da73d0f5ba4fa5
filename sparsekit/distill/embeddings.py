"""Embeddings: one vector a text, for sentence encoders (Reimers and Gurevych, arXiv 2004.09813, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_DISTANCES = ("cosine", "mse")


class Embeddings(nn.Module):
    """Distance of the student's embeddings of texts from the teacher's.

    Args:
        distance: "cosine": 1 minus the cosine, for embeddings whose length does not matter; "mse": mean squared error.

    Raises:
        ValueError: the distance is unknown.

    >>> loss = Embeddings()
    >>> float(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])))
    1.0
    """

    def __init__(self, distance: str = "cosine") -> None:
        super().__init__()
        if distance not in _DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(_DISTANCES)}, got {distance!r}")
        self.distance = distance

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch.

        Args:
            student: shape [batch, features].
            teacher: the same shape, of any floating type; no gradient flows to it.

        Returns:
            A scalar.

        Raises:
            ValueError: the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"student and teacher must embed alike, got shapes {list(student.shape)} and {list(teacher.shape)}"
            )
        target = teacher.detach().to(student.dtype)
        if self.distance == "mse":
            return F.mse_loss(student, target)
        return (1.0 - F.cosine_similarity(student, target, dim=-1)).mean()
