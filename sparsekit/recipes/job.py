"""State of a run: the model, its data and its dense teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import nn

from sparsekit.introspect.transformer_blocks import linear_layers_outside, transformer_blocks
from sparsekit.pruning.split_model import split_modules
from sparsekit.recipes.data.batches import Batch, has_label, sample
from sparsekit.recipes.report.confidence_intervals import intervals
from sparsekit.recipes.tasks import Task
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

if TYPE_CHECKING:
    from sparsekit.recipes.recipe import Recipe


@dataclass
class Job:
    """Everything that stages read and modify."""

    recipe: Recipe
    task: Task
    model: Any  # a transformers model
    tokenizer: Any
    train: list[Batch]
    test: Any  # data for the reported scores; None without test data
    validation: Any  # data for scores while training; None without validation data
    out: Path  # folder of the compressed model
    given: Callable[[], Any]  # loads the original model
    dense_after: int | None = None  # number of stages before the dense model; None: not compressed yet
    teacher: Any = None  # the dense model, loaded on first use
    stage: str = ""  # name of the current stage, with its number
    rows: list[dict[str, Any]] = field(default_factory=list)  # reports of the finished stages

    @property
    def work(self) -> Path:
        """Folder of finished stages, logs, checkpoints and the teacher's outputs."""
        return self.out / "work"

    @property
    def log(self) -> Path:
        """Log of the current stage's steps, if it trains."""
        return self.work / f"{self.stage}.jsonl"

    @property
    def teacher_cache(self) -> Path:
        """Folder of the teacher's outputs for the current stage."""
        return self.work / f"{self.stage}-teacher"

    @property
    def test_batches(self) -> int:
        """Number of batches of the test data."""
        return 0 if self.test is None else len(self.test)

    def keep_teacher(self) -> None:
        """Call before a stage compresses the model: the model before the first such stage is the dense one."""
        if self.dense_after is None:
            self.dense_after = len(self.rows)

    def labeled(self) -> list[Batch]:
        """Batches in which at least one text has a label."""
        return [batch for batch in self.train if has_label(batch)]

    def sample(self, texts: int, *, labels: bool = False) -> list[Batch]:
        """Calibration batches with about `texts` texts in total, on the model's device."""
        device = next(self.model.parameters()).device
        chosen = sample(self.labeled() if labels else self.train, texts, self.recipe.seed, labels=labels)
        return [{name: value.to(device) for name, value in batch.items()} for batch in chosen]

    @torch.inference_mode()
    def predictions(self, model: Any = None) -> NDArray[Any] | None:
        """Predictions on the test data in eval mode, a row per text, pair or window; None without test data.

        Args:
            model: the model to score; None: the current one.
        """
        if self.test is None:
            return None
        return self.task.predictions(NamedOutputs(self.model if model is None else model).eval(), self.test)

    def scores_of(self, predictions: NDArray[Any] | None) -> dict[str, Any]:
        """Scores of predictions and their "intervals"; empty for None."""
        if predictions is None:
            return {}
        return {**self.task.scores_of(predictions), "intervals": intervals(self.task, predictions)}

    def scores(self) -> dict[str, Any]:
        """Scores of the current model on the test data; see `scores_of`."""
        return self.scores_of(self.predictions())

    def scores_in(self, folder: Path) -> dict[str, Any]:
        """Scores of the model in another folder on the test data; see `scores_of`.

        Raises:
            FileNotFoundError, ValueError: as `Task.load`.
        """
        return self.scores_of(self.predictions(self.task.load(folder)[0]))

    def validation_score(self, model: nn.Module) -> float:
        """One number of a `NamedOutputs` model on the validation data, higher is better."""
        return self.task.selection_score(self.task.scores(model, self.validation))

    def transformer_blocks(self) -> nn.ModuleList:
        """The model's transformer blocks.

        Raises:
            ValueError: it has none.
        """
        return nn.ModuleList(transformer_blocks(self.model).values())

    def outside_transformer_blocks(self) -> list[str]:
        """Names of the linear layers outside the transformer blocks, such as heads and poolers."""
        with split_modules(self.model):  # so that names match those in `prune`
            return linear_layers_outside(self.model)
