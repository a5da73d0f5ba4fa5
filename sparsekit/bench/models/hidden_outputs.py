"""Outputs of a transformers model from hidden states that an engine computes: pooling and head stay the model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from sparsekit.bench.models.problem import BoundCall

#: Token ids and attention mask, int64, [batch, tokens] -> last hidden states, float32, [batch, tokens, features].
HiddenStates: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class PaddedStates:
    """Hidden states of batches of any size, by an engine that was compiled for one size.

    Args:
        call: of the engine.
        texts: in a call.
        tokens: of each text; no text may have more.
    """

    def __init__(self, call: BoundCall, texts: int, tokens: int) -> None:
        self._call = call
        self._size = texts, tokens

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states, float32, [batch, tokens, features]."""
        texts = self._size[0]
        pieces = zip(input_ids.cpu().split(texts), attention_mask.cpu().split(texts), strict=True)
        return torch.cat([self._run(*piece) for piece in pieces])

    def _run(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        texts, tokens = input_ids.shape
        ids, mask = torch.zeros(self._size, dtype=torch.int64), torch.zeros(self._size, dtype=torch.int64)
        mask[:, 0] = 1  # texts that fill the call up have a token
        ids[:texts, :tokens], mask[:texts, :tokens] = input_ids, attention_mask
        hidden = torch.from_numpy(self._call.on(ids, mask)())
        return hidden[:texts, :tokens].clone()  # engines write the next ones to the same place


@contextmanager
def hidden_states_of(model: Any, states: HiddenStates) -> Iterator[None]:
    """Let a transformers model take its last hidden states from elsewhere.

    Args:
        model: an encoder, or a classifier over one.
        states: what computes them, from ids and mask alone.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        hidden = states(input_ids, attention_mask).to(input_ids.device)
        return BaseModelOutputWithPooling(hidden, None if pooler is None else pooler(hidden))

    encoder.forward = forward  # on the instance: it hides that of the class
    try:
        yield
    finally:
        del encoder.forward
