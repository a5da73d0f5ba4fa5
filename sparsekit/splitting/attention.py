"""`SplitAttention`: `nn.MultiheadAttention` with a linear layer for each of its four matrices."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from sparsekit.splitting.split_module import Matrix, SplitModule, shape_of

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def _float_mask(mask: torch.Tensor | None, name: str, dtype: torch.dtype) -> torch.Tensor | None:
    """A mask as a float tensor to add to the scores; bool masks are True at positions that must not be attended to."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be a bool or floating tensor, got {mask.dtype}")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


class SplitAttention(SplitModule):
    """`nn.MultiheadAttention` whose query, key, value and output projections are four linear layers.

    Arguments, results and layouts are the same: `batch_first`, `kdim` and `vdim`, `add_bias_kv`, `add_zero_attn`, masks
    of both kinds, attention weights averaged or per head. Nested tensors are refused.
    """

    embed_dim: int
    num_heads: int
    head_dim: int
    dropout: float
    batch_first: bool
    add_zero_attn: bool
    bias_k: torch.Tensor | None
    bias_v: torch.Tensor | None
    #: torch's encoder layers check these before a fast path that bypasses the layers' forward; None disables it.
    in_proj_weight = None
    in_proj_bias = None
    _qkv_same_embed_dim = False

    @classmethod
    def find(cls, module: nn.Module) -> list[Matrix]:
        """Query, key and value, from one parameter or three; the output projection is already a layer."""
        if parametrize.type_before_parametrizations(module) is not nn.MultiheadAttention:
            return []
        bias = "in_proj_bias" if shape_of(module, "in_proj_bias") else None
        if shape_of(module, "in_proj_weight"):
            return [Matrix(name, "in_proj_weight", i, 3, bias=bias) for i, name in enumerate(_PROJECTIONS)]
        if not all(shape_of(module, f"{name}_weight") for name in _PROJECTIONS):
            return []  # pruned or normalized by other tools, which recompute the weights
        return [
            Matrix(name, f"{name}_weight", bias=bias, bias_index=i, bias_count=3) for i, name in enumerate(_PROJECTIONS)
        ]

    def layers(self) -> dict[str, nn.Module]:
        """The four layers."""
        return {**super().layers(), "out_proj": self.out_proj}  # type: ignore[dict-item]

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `nn.MultiheadAttention.forward`."""
        if query.is_nested or key.is_nested or value.is_nested:
            raise ValueError("a split attention takes padded tensors and key_padding_mask, got a nested tensor")
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint that attn_mask is causal; give attn_mask too")
        is_batched, turned = query.dim() == 3, query.dim() == 3 and not self.batch_first
        if not is_batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif turned:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = self._heads(query, key, value)
        mask = self._mask(q, k.shape[2], key.shape[1], attn_mask, key_padding_mask)
        mixed, weights = self._attend(q, k, v, mask, need_weights)
        order = (2, 0, 1, 3) if turned else (0, 2, 1, 3)  # tokens first, or the batch
        output = self.out_proj(mixed.permute(order).flatten(2))  # type: ignore[operator]
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output, weights

    def _heads(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
        """Query, key and value, [batch, heads, tokens, head_dim], including `bias_k`, `bias_v` and zero attention."""
        k, v = self.k_proj(key), self.v_proj(value)  # type: ignore[operator]
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], 1)
        found = [self.q_proj(query), k, v]  # type: ignore[operator]
        if self.add_zero_attn:
            found[1:] = [F.pad(one, (0, 0, 0, 1)) for one in found[1:]]
        return [one.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for one in found]

    def _mask(
        self,
        q: torch.Tensor,
        keys: int,
        given_keys: int,
        attn_mask: torch.Tensor | None,
        key_padding_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Mask to add to the scores, broadcastable to [batch, heads, queries, keys]; appended keys are not masked."""
        mask = _float_mask(attn_mask, "attn_mask", q.dtype)
        padding = _float_mask(key_padding_mask, "key_padding_mask", q.dtype)
        if mask is not None and mask.dim() == 3:
            mask = mask.view(len(q), self.num_heads, *mask.shape[1:])
        if padding is not None:
            padding = padding[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask if mask is None else F.pad(mask, (0, keys - given_keys)).to(q.dtype)

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, need_weights: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout), None
        scores = q * math.sqrt(1.0 / self.head_dim) @ k.transpose(-2, -1)
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        weights = F.dropout(weights, dropout)
        return weights @ v, weights
