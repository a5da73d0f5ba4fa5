"""Text embeddings, for similarity and retrieval."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsekit.distillation import Embeddings
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, padded
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.tasks.task import Task


@dataclass(frozen=True)
class PairSet:
    """First and second texts of pairs, in the same order, and their similarities; empty if the pairs have no labels."""

    first: list[Batch]
    second: list[Batch]
    similarities: list[float]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    @property
    def batches(self) -> list[Batch]:
        """Those of both texts."""
        return [*self.first, *self.second]


def _similarity(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a similarity of two texts is a finite number, got the label {reprlib.repr(value)}")
    return float(value)


class Embedding(Task):
    """Text embeddings, for similarity and retrieval."""

    output = "embeddings"
    auto_class = "AutoModel"
    unused_weights = ("pooler.",)
    proportions: tuple[str, ...] = ("recall@10",)

    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Padded texts; the two texts of a pair become separate rows, in separate batches."""
        unlabeled = Rows([*rows.texts, *rows.pairs], [], [])
        return padded(tokenizer, unlabeled, batch_size, max_tokens)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Not defined: embeddings learn from a teacher."""
        raise ValueError("embeddings are not fine-tuned on labels here; use a distill stage")

    def soft_loss(self, *, temperature: float, alpha: float, similarity_weight: float) -> nn.Module:
        """Cosine to the teacher's embedding, and similarities within the batch."""
        return Embeddings("cosine", similarity_weight)

    def test_set(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> PairSet:
        """Pairs of texts with their similarities, or pairs that belong together.

        Raises:
            ValueError: there are no pairs.
        """
        if not rows.pairs:
            raise ValueError("embeddings are tested on pairs of texts: name the second one's column under data: pair:")
        first, second = (
            padded(tokenizer, Rows(texts, [], []), batch_size, max_tokens, by_length=False)
            for texts in (rows.texts, rows.pairs)
        )
        return PairSet(first, second, [_similarity(value) for value in rows.labels])

    def predictions(self, model: nn.Module, test: PairSet) -> np.ndarray[Any, Any]:
        """Cosine and labeled similarity of every pair; without labels, the rank of each text's partner."""
        first, second = (
            torch.cat([model(**batch)["embeddings"].cpu() for batch in Progress(part, title="score", unit="batches")])
            for part in (test.first, test.second)
        )
        if test.similarities:
            return np.column_stack([(first * second).sum(1).numpy(), np.array(test.similarities)])
        cosines = first @ second.T
        ranks = (cosines > cosines.diagonal().unsqueeze(1)).sum(1) + 1
        return ranks.unsqueeze(1).numpy()

    def scores_of(self, predictions: np.ndarray[Any, Any]) -> dict[str, float]:
        """Rank correlation with the labeled similarities, or mean reciprocal rank and recall."""
        if predictions.shape[1] == 2:
            from scipy.stats import spearmanr

            return {"spearman": float(spearmanr(predictions[:, 0], predictions[:, 1]).statistic)}
        return {"mrr": float((1.0 / predictions).mean()), "recall@10": float((predictions <= 10).mean())}
