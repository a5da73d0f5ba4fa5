"""Classification of texts, or of pairs of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparsekit.distillation import SoftTargets
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, inputs_of, padded
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.tasks.task import Task


class Classification(Task):
    """Classification of texts, or of pairs of texts."""

    output = "logits"
    auto_class = "AutoModelForSequenceClassification"
    proportions = ("accuracy",)

    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Padded texts with their labels."""
        return padded(tokenizer, rows, batch_size, max_tokens)

    def test_set(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Padded texts with their labels.

        Raises:
            ValueError: no text has a label.
        """
        batches = self.batches(tokenizer, rows, batch_size, max_tokens)
        if all((batch["labels"] == -100).all() for batch in batches):
            raise ValueError("no row of the test data has a label: name the column of labels under data: label:")
        return batches

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy with the labels."""
        logits = model(**inputs_of(batch))["logits"]
        return F.cross_entropy(logits, batch["labels"].to(logits.device))

    def soft_loss(self, *, temperature: float, alpha: float, similarity_weight: float) -> nn.Module:
        """Soft targets."""
        return SoftTargets(temperature, alpha)

    def predictions(self, model: nn.Module, test: list[Batch]) -> np.ndarray[Any, Any]:
        """Predicted class and label of every text that has one."""
        shown = Progress(test, title="score", unit="batches")
        classes = torch.cat([model(**inputs_of(batch))["logits"].argmax(1).cpu() for batch in shown])
        labels = torch.cat([batch["labels"] for batch in test])
        return torch.stack([classes, labels], dim=1)[labels != -100].numpy()

    def scores_of(self, predictions: np.ndarray[Any, Any]) -> dict[str, float]:
        """Accuracy, and macro F1 over the classes that occur as predictions or labels."""
        classes, labels = predictions[:, 0], predictions[:, 1]
        size = int(predictions.max()) + 1
        predicted, expected = np.bincount(classes, minlength=size), np.bincount(labels, minlength=size)
        hits = np.bincount(labels[classes == labels], minlength=size)
        there = predicted + expected > 0
        return {
            "accuracy": float((classes == labels).mean()),
            "f1": float((2 * hits[there] / (predicted + expected)[there]).mean()),
        }
