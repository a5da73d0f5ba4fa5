"""Head counts in configs, for attentions whose forward reads them from there (Phi-3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sparsekit.pruning.structured.attention import Attention, head_counts


def write_head_counts(model: nn.Module, attentions: Sequence[Attention]) -> set[str]:
    """Write head counts into the configs from which attentions read them.

    Args:
        model: the model.
        attentions: all attentions of the model, after heads were removed.

    Returns:
        Names of the attentions whose layer shapes the config now determines.

    Raises:
        ValueError: attentions that share a config have different numbers of heads.
    """
    readers: dict[int, list[Attention]] = {}
    for attention in attentions:
        if attention.by_config:
            config: Any = model.get_submodule(attention.owner).config
            readers.setdefault(id(config), []).append(attention)
    for own in readers.values():
        counts = {head_counts(model, attention) for attention in own}
        if len(counts) > 1:
            raise ValueError(
                f"{type(model).__name__} reads one number of heads for all its attentions from its config as it runs; "
                "remove as many from each (scope='layer', without targets and ignore). Nothing was changed"
            )
        config = model.get_submodule(own[0].owner).config
        config.num_attention_heads, config.num_key_value_heads = counts.pop()
        config.head_dim = own[0].head_size
    return {attention.name for own in readers.values() for attention in own}
