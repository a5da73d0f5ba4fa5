"""Distillation of hidden states through a learned projection to the teacher's width.

Mean squared error, as in FitNets (Romero et al., arXiv 1412.6550, section 2.2) and TinyBERT (Jiao et al., arXiv
1909.10351, equation 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparsekit.distillation.layer_map import check_layers


class HiddenStates(nn.Module):
    """Mean squared error of projected hidden states, the mean over layers, without padding.

    Its projections are trained with the student: give `loss.parameters()` to the optimizer too.

    Args:
        student_features: width of the student's hidden states.
        teacher_features: width of the teacher's; None or the same width: no projection.
        layers: number of layers, each with a separate projection.

    Raises:
        ValueError: a number is below 1.

    >>> HiddenStates(4, 6, layers=2)
    HiddenStates(
      (projections): ModuleList(
        (0-1): 2 x Linear(in_features=4, out_features=6, bias=False)
      )
    )
    """

    def __init__(self, student_features: int, teacher_features: int | None = None, layers: int = 1) -> None:
        super().__init__()
        wide = student_features if teacher_features is None else teacher_features
        if min(student_features, wide, layers) < 1:
            raise ValueError(f"widths and layers must be at least 1, got {student_features}, {wide} and {layers}")
        same = wide == student_features
        self.projections = nn.ModuleList(
            nn.Identity() if same else nn.Linear(student_features, wide, bias=False) for _ in range(layers)
        )

    def forward(
        self, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Loss of a batch.

        Args:
            student: one tensor a layer, shape [batch, tokens, student_features].
            teacher: as many, shape [batch, tokens, teacher_features], of any floating type; no gradient flows to them.
            attention_mask: 1 for tokens, 0 for padding, shape [batch, tokens].

        Returns:
            A scalar.

        Raises:
            ValueError: the numbers of layers differ from each other or from `layers`, or a shape does not fit.
        """
        if len(student) != len(self.projections):
            raise ValueError(f"this loss has projections for {len(self.projections)} layers, got {len(student)}")
        projected = [project(student_layer) for project, student_layer in zip(self.projections, student, strict=True)]
        check_layers(projected, teacher)
        tokens = attention_mask.unsqueeze(-1)
        total = student[0].new_zeros(())
        for student_layer, teacher_layer in zip(projected, teacher, strict=True):
            error = (student_layer - teacher_layer.detach().to(student_layer.dtype)).square() * tokens
            total = total + error.sum() / (tokens.sum() * student_layer.shape[-1])
        return total / len(projected)
