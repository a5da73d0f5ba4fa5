"""Pruning and distillation inside the trainers of transformers and sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from sparsekit.distillation import Distillation, Embeddings, Teacher
from sparsekit.distillation.teacher_outputs import named_outputs
from sparsekit.pruning.masks.optimizer_state import drop_optimizer_state
from sparsekit.pruning.movement import masked_sparsity
from sparsekit.training.gradual import GradualPruning


class PruningCallback(TrainerCallback):
    """Prunes at the steps of a schedule; for `Trainer` and `SentenceTransformerTrainer` alike.

    Before the model is saved for good, bake the masks in with `sparsekit.finalize(model)`.

    Args:
        pruning: what is pruned, when and how far.

    >>> from sparsekit.pruning import Schedule
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> callback = PruningCallback(GradualPruning(model, Schedule(0.5, end=100, frequency=10)))
    """

    def __init__(self, pruning: GradualPruning) -> None:
        self.pruning = pruning

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prune where the schedule does, and reset the optimizer state of pruned weights."""
        if self.pruning(state.global_step) and kwargs.get("optimizer") is not None:
            drop_optimizer_state(kwargs["optimizer"], self.pruning.model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Add the sparsity to what is logged and remembered."""
        for entry in (logs, state.log_history[-1] if state.log_history else None):
            if entry is not None:
                entry["sparsity"] = round(masked_sparsity(self.pruning.model), 4)


class DistillationTrainer(Trainer):
    """transformers' `Trainer` whose loss is that of a student that follows a teacher.

    Args:
        teacher: the model to follow; it is frozen.
        objective: what of its outputs, such as `Distillation({"logits": SoftTargets(alpha=0.2)})`. For "hidden_states",
            set `output_hidden_states` in the configs of both. Parameters of its losses are trained where the optimizer
            has them: give `optimizers`.
        arguments: further arguments of `Trainer`.
    """

    def __init__(self, *arguments: Any, teacher: nn.Module, objective: Distillation, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: the trainer divides it by accumulated batches
        self.teacher = Teacher(teacher).to(self.args.device)
        self.objective: Distillation = objective.to(self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of a batch, and with `return_outputs` the student's outputs."""
        del num_items_in_batch
        given = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**given)
        loss = self.objective(named_outputs(outputs), named_outputs(self.teacher(**given)), inputs)
        return (loss, outputs) if return_outputs else loss


class FollowEmbeddings(nn.Module):
    """Loss for `SentenceTransformerTrainer`: the student embeds every text as the teacher does; labels are not used.

    Args:
        student: the `SentenceTransformer` that is trained.
        teacher: another one, which is frozen.
        distance, similarity_weight: as `sparsekit.distillation.Embeddings`.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, distance: str = "cosine", similarity_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.model = student
        self.loss = Embeddings(distance, similarity_weight)
        # In a list, so that it is no part of this module: trainers save and move only what is trained.
        self._teacher = [Teacher(teacher)]

    def forward(
        self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean loss of the columns of texts.

        Args:
            sentence_features: tokenized texts, a dictionary for each column.
            labels: not used.
        """
        del labels
        losses = []
        for features in sentence_features:
            own = self.model(dict(features))["sentence_embedding"]
            teacher = self._teacher[0].to(own.device)
            losses.append(self.loss(own, teacher(dict(features))["sentence_embedding"]))
        return torch.stack(losses).mean()
