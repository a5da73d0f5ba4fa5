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
    """Prunes at the steps of a schedule, in `Trainer` and `SentenceTransformerTrainer`.

    Call `sparsekit.finalize(model)` to bake the masks in before the final save.

    Args:
        pruning: model, schedule and criterion.

    >>> from sparsekit.pruning import Schedule
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> callback = PruningCallback(GradualPruning(model, Schedule(0.5, end=100, frequency=10)))
    """

    def __init__(self, pruning: GradualPruning) -> None:
        self.pruning = pruning

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prune if the schedule prunes at this step, and reset the optimizer state of pruned weights."""
        if self.pruning(state.global_step) and kwargs.get("optimizer") is not None:
            drop_optimizer_state(kwargs["optimizer"], self.pruning.model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Add the sparsity to the log."""
        for entry in (logs, state.log_history[-1] if state.log_history else None):
            if entry is not None:
                entry["sparsity"] = round(masked_sparsity(self.pruning.model), 4)


class DistillationTrainer(Trainer):
    """A `Trainer` of transformers with a distillation loss.

    Args:
        teacher: the teacher, which is frozen.
        objective: the loss, such as `Distillation({"logits": SoftTargets(alpha=0.2)})`. For "hidden_states", set
            `output_hidden_states` in both configs. To train parameters of its losses, pass `optimizers` that have them.
        arguments: further arguments of `Trainer`.
    """

    def __init__(self, *arguments: Any, teacher: nn.Module, objective: Distillation, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.model_accepts_loss_kwargs = False  # the trainer must divide the mean loss itself
        self.teacher = Teacher(teacher).to(self.args.device)
        self.objective: Distillation = objective.to(self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of a batch, with the student's outputs if `return_outputs` is set."""
        del num_items_in_batch
        given = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**given)
        loss = self.objective(named_outputs(outputs), named_outputs(self.teacher(**given)), inputs)
        return (loss, outputs) if return_outputs else loss


class FollowEmbeddings(nn.Module):
    """Loss for `SentenceTransformerTrainer`: distance of embeddings to the teacher's; labels are not used.

    Args:
        student: the `SentenceTransformer` to train.
        teacher: the teacher, which is frozen.
        distance, similarity_weight: as `sparsekit.distillation.Embeddings`.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, distance: str = "cosine", similarity_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.model = student
        self.loss = Embeddings(distance, similarity_weight)
        # In a list, so that it is not a submodule, which trainers would save and move.
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
