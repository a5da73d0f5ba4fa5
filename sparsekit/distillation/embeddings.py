"""Distillation of sentence embeddings, one vector a text (Reimers and Gurevych, arXiv 2004.09813, section 2).

Optionally also distills the similarities of a text to the batch's texts (SEED: Fang et al., arXiv 2101.04731, section
3.2, with the batch in place of a queue).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_DISTANCES = ("cosine", "mse")


def _divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence of the softmax of similarities to the batch's texts in the teacher's embedding, mean over texts."""
    anchors = F.normalize(teacher, dim=-1)
    student_logits, teacher_logits = (F.normalize(one, dim=-1) @ anchors.T / temperature for one in (student, teacher))
    return F.kl_div(
        student_logits.log_softmax(-1), teacher_logits.log_softmax(-1), log_target=True, reduction="batchmean"
    )


class Embeddings(nn.Module):
    """Distance of the student's embeddings of texts from the teacher's.

    Args:
        distance: "cosine": 1 minus the cosine, for embeddings whose length does not matter; "mse": mean squared error.
        similarity_weight: weight of another term: the KL divergence between teacher and student of the softmax of
            cosines to the teacher's embeddings of all texts of the batch, by which search ranks.
        temperature: cosines are divided by it before that softmax.

    Raises:
        ValueError: the distance is unknown, the weight negative or the temperature not above 0.

    >>> loss = Embeddings()
    >>> float(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])))
    1.0
    """

    def __init__(self, distance: str = "cosine", similarity_weight: float = 0.0, temperature: float = 0.05) -> None:
        super().__init__()
        if distance not in _DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(_DISTANCES)}, got {distance!r}")
        if not (similarity_weight >= 0 and temperature > 0):
            raise ValueError(
                "similarity_weight must not be negative and temperature must be above 0, got "
                f"{similarity_weight} and {temperature}"
            )
        self.distance = distance
        self.similarity_weight = similarity_weight
        self.temperature = temperature

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
            loss = F.mse_loss(student, target)
        else:
            loss = (1.0 - F.cosine_similarity(student, target, dim=-1)).mean()
        if self.similarity_weight:
            loss = loss + self.similarity_weight * _divergence(student, target, self.temperature)
        return loss
