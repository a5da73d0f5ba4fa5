"""Train the teacher, make the sparse student, let it learn from the teacher."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from sparsekit.demo.data import Batch
from sparsekit.demo.model import Output, SentenceClassifier
from sparsekit.demo.settings import Settings
from sparsekit.distill import SoftTargets, SquareHead
from sparsekit.pruning import prune_one_shot

#: Layers that stay dense: the head has 768 weights.
IGNORE = ("head",)


def _fit(
    model: nn.Module,
    batches: Sequence[Batch],
    loss_of: Callable[[int], torch.Tensor],
    *,
    epochs: float,
    learning_rate: float,
    seed: int,
    title: str,
) -> None:
    """Minimise `loss_of(batch number)` with AdamW, a short warm-up and a linear decay."""
    from transformers import get_linear_schedule_with_warmup

    steps = max(1, round(epochs * len(batches)))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, max(1, steps // 16), steps)
    order = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    numbers: list[int] = []
    while len(numbers) < steps:
        numbers.extend(order.sample(range(len(batches)), len(batches)))
    progress = tqdm(numbers[:steps], desc=title, unit="batch")
    for number in progress:
        loss = loss_of(number)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def train_teacher(model: SentenceClassifier, batches: Sequence[Batch], settings: Settings) -> None:
    """Fine-tune the dense model on labelled sentences."""
    model.train()

    def loss_of(number: int) -> torch.Tensor:
        batch = batches[number]
        return F.cross_entropy(model(**batch.inputs).logits, batch.labels)

    _fit(
        model,
        batches,
        loss_of,
        epochs=settings.teacher_epochs,
        learning_rate=settings.teacher_learning_rate,
        seed=settings.seed,
        title="fine-tune the dense teacher",
    )
    model.eval()


def prune_student(teacher: SentenceClassifier, batches: Sequence[Batch], settings: Settings) -> SentenceClassifier:
    """Copy of the teacher, pruned in one shot on a few training sentences; its masks stay."""
    student = copy.deepcopy(teacher)
    count = max(1, settings.calibration_sentences // settings.batch_size)
    chosen = random.Random(settings.seed).sample(list(batches), min(count, len(batches)))  # noqa: S311
    linears = sum(isinstance(module, nn.Linear) for module in teacher.encoder.modules())
    with tqdm(total=linears, desc="prune the student in one shot", unit="layer") as progress:
        prune_one_shot(
            student,
            [batch.inputs for batch in chosen],
            settings.sparsity,
            ignore=IGNORE,
            on_layer=lambda _: progress.update(),
        )
    return student


@torch.inference_mode()
def _teacher_outputs(teacher: SentenceClassifier, batches: Sequence[Batch]) -> list[Output]:
    """What the teacher says to every batch, computed once; hidden states in half precision."""
    teacher.eval()
    outputs = []
    for batch in tqdm(batches, desc="ask the teacher", unit="batch"):
        logits, hidden_states = teacher(**batch.inputs)
        outputs.append(Output(logits, tuple(state.half() for state in hidden_states)))
    return outputs


def distill_student(
    student: SentenceClassifier, teacher: SentenceClassifier, batches: Sequence[Batch], settings: Settings
) -> None:
    """Let the student follow the teacher's logits and hidden states; its masks are kept."""
    answers = _teacher_outputs(teacher, batches)
    soft_targets = SoftTargets(settings.temperature, settings.alpha)
    square_head = SquareHead()
    student.eval()  # no dropout: the teacher's answers were given without

    def loss_of(number: int) -> torch.Tensor:
        batch, answer = batches[number], answers[number]
        own: Output = student(**batch.inputs)
        follow: torch.Tensor = square_head(own.hidden_states, answer.hidden_states, batch.inputs["attention_mask"])
        loss: torch.Tensor = soft_targets(own.logits, answer.logits, batch.labels) + follow
        return loss

    _fit(
        student,
        batches,
        loss_of,
        epochs=settings.student_epochs,
        learning_rate=settings.student_learning_rate,
        seed=settings.seed + 1,
        title="distil the sparse student",
    )
