"""Attention transfer: the student matches the teacher's attention maps.

Kullback-Leibler divergence between the distributions over the tokens that each token attends to (MiniLM: Wang et al.,
arXiv 2002.10957, equation 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparsekit.distillation.layer_map import check_layers


class AttentionMaps(nn.Module):
    """KL divergence of attention distributions, the mean over layers, heads and tokens, without padding.

    Where student and teacher have different numbers of heads, the means over the heads are compared.
    """

    def forward(
        self, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Loss of a batch.

        Args:
            student: probabilities, one tensor a layer, shape [batch, heads, tokens, tokens], as transformers returns
                them with `output_attentions=True` and `attn_implementation="eager"`.
            teacher: as many, of any floating type; no gradient flows to them.
            attention_mask: 1 for tokens, 0 for padding, shape [batch, tokens].

        Returns:
            A scalar, 0 when all agree.

        Raises:
            ValueError: the numbers of layers or shapes differ.
        """
        if len(student) == len(teacher):
            pairs = [
                _same_heads(student_map, teacher_map) for student_map, teacher_map in zip(student, teacher, strict=True)
            ]
            student, teacher = [student_map for student_map, _ in pairs], [teacher_map for _, teacher_map in pairs]
        check_layers(student, teacher)
        from_tokens = attention_mask[:, None, :, None]  # rows of padding do not count; columns of padding hold 0
        total = student[0].new_zeros(())
        for student_map, teacher_map in zip(student, teacher, strict=True):
            target = teacher_map.detach().to(student_map.dtype)
            least = torch.finfo(student_map.dtype).tiny
            divergence = target * (target.clamp(min=least).log() - student_map.clamp(min=least).log())
            total = total + (divergence * from_tokens).sum() / (attention_mask.sum() * student_map.shape[1])
        return total / len(student)


def _same_heads(student_map: torch.Tensor, teacher_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both unchanged, or the mean over heads where the numbers of heads differ."""
    if student_map.dim() != 4 or teacher_map.dim() != 4 or student_map.shape[1] == teacher_map.shape[1]:
        return student_map, teacher_map
    return student_map.mean(1, keepdim=True), teacher_map.mean(1, keepdim=True)
