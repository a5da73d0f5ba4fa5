"""Base class of all tasks: load a model, make batches, losses, scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.folder.weight_files import check_finalized
from sparsekit.io.file_names import MANIFEST
from sparsekit.recipes.data.batches import Batch
from sparsekit.recipes.data.tables import Rows


class Task(ABC):
    """One kind of model."""

    #: The output that a student follows, apart from hidden states.
    output: str
    #: Auto class of transformers that loads such models.
    auto_class: str
    #: Prefixes of weights that the task does not use.
    unused_weights: tuple[str, ...] = ()
    #: Scores that are a proportion of the predictions.
    proportions: tuple[str, ...] = ()

    def load(self, folder: Path | str, *, new_head: bool = False, classes: Sequence[str] = ()) -> tuple[Any, Any]:
        """Load a float32 model and its tokenizer from a folder of transformers or `sparsekit.save`, without downloads.

        Args:
            folder: the folder.
            new_head: whether missing weights, such as a head, may be randomly initialized.
            classes: class names in the order of their ids; empty: the model's own.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the folder lacks weights that this task needs.
        """
        import transformers

        from sparsekit.checkpoint import load

        check_model_folder(Path(folder))
        tokenizer = from_folder(transformers.AutoTokenizer.from_pretrained, folder)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if (Path(folder) / MANIFEST).is_file():
            return load(folder), tokenizer
        options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
        if classes:
            names = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
            options |= {"num_labels": len(classes), "ignore_mismatched_sizes": new_head, **names}
        model, found = from_folder(getattr(transformers, self.auto_class).from_pretrained, folder, **options)
        lacking = sorted(key for key in found["missing_keys"] if not key.startswith(self.unused_weights))
        if lacking:
            check_finalized(folder, found["unexpected_keys"])
        if lacking and not new_head:
            raise ValueError(
                f"{folder} has no {', '.join(lacking[:3])}, which a model for this task needs; begin with a finetune "
                "stage"
            )
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return model, tokenizer

    @abstractmethod
    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Make batches from a table."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Fine-tuning loss."""

    @abstractmethod
    def soft_loss(self, *, temperature: float, alpha: float, similarity_weight: float) -> nn.Module:
        """Loss between the outputs of student and teacher."""

    def test_set(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> Any:
        """Make the test set that models are scored on."""
        return self.batches(tokenizer, rows, batch_size, max_tokens)

    @abstractmethod
    def predictions(self, model: nn.Module, test: Any) -> np.ndarray[Any, Any]:
        """Predictions of a `NamedOutputs` model, from which scores are computed: a row per text, pair or window."""

    @abstractmethod
    def scores_of(self, predictions: np.ndarray[Any, Any]) -> dict[str, float]:
        """Scores of predictions, the main one first."""

    def scores(self, model: nn.Module, test: Any) -> dict[str, float]:
        """Scores on a test set, the main one first."""
        return self.scores_of(self.predictions(model, test))

    def selection_score(self, scores: dict[str, float]) -> float:
        """The score by which `patience` selects weights; higher is better."""
        return next(iter(scores.values()))
