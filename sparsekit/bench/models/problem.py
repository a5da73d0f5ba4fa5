"""The problem of the model benchmark: an encoder, and a call of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from sparsekit.bench.layers.problem import Floats

#: Token ids of real texts, with special tokens, to calibrate static quantization on.
Calibration: TypeAlias = tuple[tuple[int, ...], ...]


class HiddenState(nn.Module):
    """A transformers model whose only output is its last hidden state, [batch, tokens, features].

    Args:
        model: a model of `AutoModel`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Run the model on token ids and mask, int64, [batch, tokens]."""
        hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


@dataclass(frozen=True)
class ModelProblem:
    """One call of a whole model."""

    model: HiddenState  # dense, with zeros
    input_ids: torch.Tensor  # int64, [batch, tokens]
    attention_mask: torch.Tensor
    threads: int
    calibration: Calibration = ()  # empty: calibrate on the inputs themselves

    @property
    def arrays(self) -> dict[str, Any]:
        """Inputs by name, as numpy arrays."""
        return {"input_ids": self.input_ids.numpy(), "attention_mask": self.attention_mask.numpy()}


ModelCall: TypeAlias = Callable[[], Floats]
