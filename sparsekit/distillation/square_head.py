"""SquareHead: distillation of every layer's hidden states.

Squared error of each layer relative to the squared norm of the teacher's, so that layers of any scale count alike
(Kurtic et al., "Sparse Fine-Tuning for Inference Acceleration of LLMs", arXiv 2310.06927, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparsekit.distillation.layer_map import check_layers


class SquareHead(nn.Module):
    """Sum over layers of the normalized squared error, over the tokens that are not padding."""

    def forward(
        self, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Loss of a batch.

        Args:
            student: one tensor a layer, shape [batch, tokens, features].
            teacher: as many tensors of the same shapes, of any floating type; no gradient flows to them.
            attention_mask: 1 for tokens, 0 for padding, shape [batch, tokens].

        Returns:
            A scalar: 0 when all agree, about the number of layers when the student's are zero.

        Raises:
            ValueError: the two have different numbers of layers, or a layer another shape; see `LayerMap` for students
                with fewer layers and `HiddenStates` for narrower ones.
        """
        check_layers(student, teacher)
        tokens = attention_mask.unsqueeze(-1)
        total = student[0].new_zeros(())
        for student_layer, teacher_layer in zip(student, teacher, strict=True):
            target = teacher_layer.detach().to(student_layer.dtype)
            total = total + ((student_layer - target).square() * tokens).sum() / (target.square() * tokens).sum()
        return total
