"""Score encoders by texts alone: how near their vectors are to the dense model's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, padded
from sparsekit.recipes.data.splits import Splits
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.job import Job
from sparsekit.recipes.preparation import prepare
from sparsekit.recipes.recipe import Recipe
from sparsekit.recipes.tasks.embedding import Embedding
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

#: Name of the score.
FIDELITY = "fidelity"


@dataclass(frozen=True)
class VectorSet:
    """Texts with the dense model's vectors of them, float32, shape [texts, features]."""

    batches: list[Batch]
    vectors: torch.Tensor

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)


def _vectors(model: nn.Module, batches: list[Batch]) -> torch.Tensor:
    shown = Progress(batches, title="score", unit="batches")
    return torch.cat([model(**batch)["embeddings"].cpu() for batch in shown])


class Fidelity(Embedding):
    """Text embeddings, scored by their cosines to the dense model's.

    Args:
        dense: the dense model, as transformers has it.
    """

    proportions = ()

    def __init__(self, dense: nn.Module) -> None:
        self._dense = NamedOutputs(dense).eval()

    @torch.inference_mode()
    def test_set(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> Any:
        """A `VectorSet` of the texts."""
        batches = padded(tokenizer, Rows(rows.texts, [], []), batch_size, max_tokens)
        return VectorSet(batches, _vectors(self._dense, batches))

    def predictions(self, model: nn.Module, test: Any) -> np.ndarray[Any, Any]:
        """Cosine to the dense model's vector of every text, shape [texts, 1]."""
        cosines = (_vectors(model, test.batches) * test.vectors).sum(1, keepdim=True)
        return np.asarray(cosines)

    def scores_of(self, predictions: np.ndarray[Any, Any]) -> dict[str, float]:
        """The mean of the cosines."""
        return {FIDELITY: float(predictions.mean())}


def prepare_scored(recipe: Recipe, dense: Path, splits: Splits, work: Path) -> Job:
    """`prepare` for the dense model, scored by `Fidelity` where an encoder's test rows are no pairs.

    Raises:
        FileNotFoundError, ValueError: as `prepare`.
    """
    rows = splits.test
    if recipe.task != "embedding" or rows is None or rows.pairs:
        return prepare(recipe, dense, splits, work)
    job = prepare(recipe, dense, replace(splits, test=None), work)
    job.task = Fidelity(job.model)
    job.test = job.task.test_set(job.tokenizer, rows, recipe.data.batch_size, recipe.data.max_tokens)
    return job
