"""Outputs of a transformers model by name: logits, embeddings, hidden states, attention maps."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class NamedOutputs(nn.Module):
    """A transformers model that returns its outputs under the names that losses use.

    Args:
        model: the model.
        layers: per-layer outputs to return: "hidden_states", "attentions". Attention maps need the model's "eager"
            attention, see `eager_attention`.
    """

    def __init__(self, model: nn.Module, layers: Collection[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.layers = layers

    def forward(self, **inputs: torch.Tensor) -> dict[str, Any]:
        """Outputs by name; "embeddings" are the mean of the last hidden states over tokens, normalized to length 1.

        Raises:
            ValueError: the model returns no attention maps.
        """
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        output = self.model(**inputs, **{f"output_{name}": True for name in self.layers})
        found: dict[str, Any] = {}
        if "hidden_states" in self.layers:
            found["hidden_states"] = tuple(output.hidden_states[1:])
        if "attentions" in self.layers:
            found["attentions"] = _attention_maps(output, self.model)
        if "logits" in output:
            found["logits"] = output.logits
        else:
            weights = inputs["attention_mask"].unsqueeze(-1).to(output.last_hidden_state.dtype)
            mean = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
            found["embeddings"] = F.normalize(mean, dim=-1)
        return found


def _attention_maps(output: Any, model: nn.Module) -> tuple[torch.Tensor, ...]:
    maps = output.get("attentions") or ()
    if not maps or any(one is None for one in maps):
        raise ValueError(
            f"{type(model).__name__} gives no attention maps, not even with eager attention; set attention_weight: 0"
        )
    return tuple(maps)


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Make a transformers model materialize its attention maps, which fused kernels such as sdpa do not."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
