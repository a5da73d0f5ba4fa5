"""Causal language modeling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparsekit.distillation import TopSoftTargets
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, inputs_of, windows
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.tasks.task import Task


class Language(Task):
    """Causal language modeling."""

    output = "logits"
    auto_class = "AutoModelForCausalLM"

    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Windows of the texts, with the next tokens as labels (-100 for the last position)."""
        found = windows(tokenizer, rows, batch_size, max_tokens)
        for batch in found:
            none = torch.full_like(batch["input_ids"][:, :1], -100)
            batch["labels"] = torch.cat([batch["input_ids"][:, 1:], none], dim=1)
        return found

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the next tokens."""
        logits = model(**inputs_of(batch))["logits"]
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten().to(logits.device))

    def soft_loss(self, *, temperature: float, alpha: float, similarity_weight: float) -> nn.Module:
        """Soft targets from the teacher's top logits."""
        return TopSoftTargets(temperature, alpha)

    def predictions(self, model: nn.Module, test: list[Batch]) -> np.ndarray[Any, Any]:
        """Summed loss and number of tokens of every window."""
        found = []
        for batch in Progress(test, title="score", unit="batches"):
            logits = model(**inputs_of(batch))["logits"].cpu()
            losses = F.cross_entropy(logits.transpose(1, 2).float(), batch["labels"], reduction="none")
            found.append(torch.stack([losses.double().sum(1), (batch["labels"] != -100).sum(1)], dim=1))
        return torch.cat(found).numpy()

    def scores_of(self, predictions: np.ndarray[Any, Any]) -> dict[str, float]:
        """Perplexity, lower is better."""
        losses, tokens = predictions.sum(0)
        return {"perplexity": float(np.exp(losses / tokens))}

    def selection_score(self, scores: dict[str, float]) -> float:
        """Negative perplexity."""
        return -scores["perplexity"]
