"""Attention transfer: the student matches the teacher's attention maps.

Kullback-Leibler divergence between the distributions over the tokens that each token attends to (MiniLM: Wang et al.,
arXiv 2002.10957, equation 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparsekit.distillation.layers import check_layers


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
            pairs = [_same_heads(own, other) for own, other in zip(student, teacher, strict=True)]
            student, teacher = [own for own, _ in pairs], [other for _, other in pairs]
        check_layers(student, teacher)
        from_tokens = attention_mask[:, None, :, None]  # rows of padding do not count; columns of padding hold 0
        total = student[0].new_zeros(())
        for own, other in zip(student, teacher, strict=True):
            target = other.detach().to(own.dtype)
            least = torch.finfo(own.dtype).tiny
            divergence = target * (target.clamp(min=least).log() - own.clamp(min=least).log())
            total = total + (divergence * from_tokens).sum() / (attention_mask.sum() * own.shape[1])
        return total / len(student)


def _same_heads(own: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both unchanged, or the mean over heads where the numbers of heads differ."""
    if own.dim() != 4 or other.dim() != 4 or own.shape[1] == other.shape[1]:
        return own, other
    return own.mean(1, keepdim=True), other.mean(1, keepdim=True)
