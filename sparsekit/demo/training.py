"""Train the teacher, make the sparse student, let it learn from the teacher."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from sparsekit.demo.data import Batch
from sparsekit.demo.model import SentenceClassifier
from sparsekit.demo.settings import Settings
from sparsekit.distillation import Distillation, SoftTargets, SquareHead, Teacher
from sparsekit.distillation.teacher_outputs import teacher_outputs
from sparsekit.pruning import prune_sparsegpt
from sparsekit.training import TrainSettings, train

#: Layers that stay dense: the head has 768 weights.
IGNORE = ("head",)


def _settings(epochs: float, learning_rate: float, seed: int) -> TrainSettings:
    return TrainSettings(epochs=epochs, learning_rate=learning_rate, seed=seed)


def train_teacher(model: SentenceClassifier, batches: Sequence[Batch], settings: Settings) -> None:
    """Fine-tune the dense model on labelled sentences."""

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(model(**batch.inputs).logits, batch.labels)

    how = _settings(settings.teacher_epochs, settings.teacher_learning_rate, settings.seed)
    train(model.train(), batches, loss, how, title="fine-tune the dense teacher")
    model.eval()


def prune_student(teacher: SentenceClassifier, batches: Sequence[Batch], settings: Settings) -> SentenceClassifier:
    """Copy of the teacher, pruned by SparseGPT on a few training sentences; its masks stay."""
    student = copy.deepcopy(teacher)
    count = max(1, settings.calibration_sentences // settings.batch_size)
    chosen = random.Random(settings.seed).sample(list(batches), min(count, len(batches)))  # noqa: S311
    prune_sparsegpt(student, settings.sparsity, [batch.inputs for batch in chosen], ignore=IGNORE)
    return student


def distill_student(
    student: SentenceClassifier, teacher: SentenceClassifier, batches: Sequence[Batch], settings: Settings
) -> None:
    """Let the student follow the teacher's logits and hidden states; its masks are kept."""
    objective = Distillation(
        {"logits": SoftTargets(settings.temperature, settings.alpha), "hidden_states": SquareHead()}
    )
    asked = Teacher(copy.deepcopy(teacher))

    def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
        own = model(**batch.inputs)._asdict()
        found: torch.Tensor = objective(
            own, teacher_outputs(asked, batch.inputs), {**batch.inputs, "labels": batch.labels}
        )
        return found

    how = _settings(settings.student_epochs, settings.student_learning_rate, settings.seed + 1)
    student.eval()  # no dropout: the teacher answers without
    train(student, batches, loss, how, title="distill the sparse student")
