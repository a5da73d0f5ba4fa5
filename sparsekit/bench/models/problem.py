"""The problem of the model benchmark: an encoder, and a call of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

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


ModelCall: TypeAlias = Callable[[], Floats]


class BoundCall:
    """An engine's call on a problem's inputs, which are converted for the engine beforehand.

    Args:
        bind: makes the engine's call on input ids and attention mask.
        problem: the inputs.

    `on` makes the call on other inputs of the same size.
    """

    def __init__(self, bind: Callable[[torch.Tensor, torch.Tensor], ModelCall], problem: ModelProblem) -> None:
        self.on = bind
        self._call = bind(problem.input_ids, problem.attention_mask)

    def __call__(self) -> Floats:
        """The last hidden state."""
        return self._call()


def random_ids(texts: int, tokens: int, vocabulary: int, padding: int | None) -> torch.Tensor:
    """Random token ids, int64, [texts, tokens], without the padding id, to which some families give no position."""
    numbers = torch.Generator().manual_seed(texts * tokens)
    ids = torch.randint(vocabulary, (texts, tokens), generator=numbers)
    return ids if padding is None else torch.where(ids == padding, (ids + 1) % vocabulary, ids)
