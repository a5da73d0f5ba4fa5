"""What models are for: how to load one, make batches, fine-tune, follow a teacher, and score it."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparsekit.checkpoint.transformers.foreign import check_model_folder, from_folder
from sparsekit.distillation import Embeddings, SoftTargets, TopSoftTargets
from sparsekit.io.file_names import MANIFEST
from sparsekit.progress import Progress
from sparsekit.recipes.batches import Batch, inputs_of, padded, windows
from sparsekit.recipes.data import Rows
from sparsekit.recipes.recipe import Distill


class Named(nn.Module):
    """A transformers model whose outputs have names that losses use; "hidden_states" are those of its blocks.

    Args:
        model: the model.
        layers: which of "hidden_states" and "attentions", one tensor a block, are among the outputs. Attention maps
            need the model's "eager" attention: see `attention_maps_of`.
    """

    def __init__(self, model: nn.Module, layers: Collection[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.layers = layers

    def forward(self, **inputs: torch.Tensor) -> dict[str, Any]:
        """Outputs by name; "embeddings" is the mean of the last hidden state over the tokens, of length 1.

        Raises:
            ValueError: the model gives no attention maps.
        """
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        output = self.model(**inputs, **{f"output_{name}": True for name in self.layers})
        found: dict[str, Any] = {}
        if "hidden_states" in self.layers:
            found["hidden_states"] = tuple(output.hidden_states[1:])
        if "attentions" in self.layers:
            found["attentions"] = _maps_in(output, self.model)
        if "logits" in output:
            found["logits"] = output.logits
        else:
            weights = inputs["attention_mask"].unsqueeze(-1).to(output.last_hidden_state.dtype)
            mean = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
            found["embeddings"] = F.normalize(mean, dim=-1)
        return found


def _maps_in(output: Any, model: nn.Module) -> tuple[torch.Tensor, ...]:
    maps = output.get("attentions") or ()
    if not maps or any(one is None for one in maps):
        raise ValueError(
            f"{type(model).__name__} gives no attention maps, also with its attention set to 'eager'; set "
            "attention_weight: 0"
        )
    return tuple(maps)


@contextmanager
def attention_maps_of(model: Any) -> Iterator[None]:
    """Have a transformers model compute its attention maps, which fused kernels such as sdpa never make."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class Task(ABC):
    """One kind of model."""

    #: The output whose answers a student follows, apart from hidden states.
    output: str
    #: transformers' class that loads such models.
    auto_class: str
    #: Beginnings of names of weights that the task has no use for.
    unused: tuple[str, ...] = ()
    #: Scores that are the part of the answers that are right.
    proportions: tuple[str, ...] = ()

    def load(self, folder: Path | str, *, anew: bool = False, classes: Sequence[str] = ()) -> tuple[Any, Any]:
        """Model in float32 and tokenizer of a folder of transformers or of `sparsekit.save`; nothing is downloaded.

        Args:
            folder: the folder.
            anew: whether weights that the folder lacks, such as a head, may begin at random.
            classes: names of the classes, by number; none: the model's own.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: it lacks weights that this task needs.
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
            options |= {"num_labels": len(classes), "ignore_mismatched_sizes": anew, **names}
        model, found = from_folder(getattr(transformers, self.auto_class).from_pretrained, folder, **options)
        lacking = sorted(key for key in found["missing_keys"] if not key.startswith(self.unused))
        if lacking and not anew:
            raise ValueError(
                f"{folder} has no {', '.join(lacking[:3])}, which a model for this task needs; begin with a finetune "
                "stage"
            )
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return model, tokenizer

    @abstractmethod
    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Batches of a table."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """What fine-tuning minimises."""

    @abstractmethod
    def soft_loss(self, stage: Distill) -> nn.Module:
        """How a student follows the teacher's outputs."""

    def test_set(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> Any:
        """What `scores` is taken on."""
        return self.batches(tokenizer, rows, batch_size, max_tokens)

    @abstractmethod
    def answers(self, model: nn.Module, test: Any) -> np.ndarray[Any, Any]:
        """What scores are taken of, of a `Named` model on a test set: a row for each text, pair or window."""

    @abstractmethod
    def scores_of(self, answers: np.ndarray[Any, Any]) -> dict[str, float]:
        """Scores of answers, the most telling first."""

    def scores(self, model: nn.Module, test: Any) -> dict[str, float]:
        """Scores of a `Named` model on a test set, the most telling first."""
        return self.scores_of(self.answers(model, test))

    def better(self, scores: dict[str, float]) -> float:
        """One number of the scores, higher is better."""
        return next(iter(scores.values()))


class Classification(Task):
    """Classes of texts, or of pairs of texts."""

    output = "logits"
    auto_class = "AutoModelForSequenceClassification"
    proportions = ("accuracy",)

    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Padded texts with their labels."""
        return padded(tokenizer, rows, batch_size, max_tokens)

    def test_set(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Padded texts with their labels.

        Raises:
            ValueError: none has a label.
        """
        batches = self.batches(tokenizer, rows, batch_size, max_tokens)
        if all((batch["labels"] == -100).all() for batch in batches):
            raise ValueError("no row of the test data has a label: name the column of labels under data: label:")
        return batches

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy with the labels."""
        logits = model(**inputs_of(batch))["logits"]
        return F.cross_entropy(logits, batch["labels"].to(logits.device))

    def soft_loss(self, stage: Distill) -> nn.Module:
        """Soft targets."""
        return SoftTargets(stage.temperature, stage.alpha)

    def answers(self, model: nn.Module, test: list[Batch]) -> np.ndarray[Any, Any]:
        """Guess and label of every text that has one."""
        shown = Progress(test, title="score", unit="batches")
        guesses = torch.cat([model(**inputs_of(batch))["logits"].argmax(1).cpu() for batch in shown])
        labels = torch.cat([batch["labels"] for batch in test])
        return torch.stack([guesses, labels], dim=1)[labels != -100].numpy()

    def scores_of(self, answers: np.ndarray[Any, Any]) -> dict[str, float]:
        """Accuracy and the mean F1 over the classes that are guessed or right."""
        guesses, labels = answers[:, 0], answers[:, 1]
        size = int(answers.max()) + 1
        guessed, right = np.bincount(guesses, minlength=size), np.bincount(labels, minlength=size)
        hits = np.bincount(labels[guesses == labels], minlength=size)
        there = guessed + right > 0
        return {
            "accuracy": float((guesses == labels).mean()),
            "f1": float((2 * hits[there] / (guessed + right)[there]).mean()),
        }


@dataclass(frozen=True)
class PairSet:
    """Pairs of texts in the same order, and how alike they are; empty where each pair belongs together."""

    first: list[Batch]
    second: list[Batch]
    similarities: list[float]


def _similarity(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"how alike two texts are is a number, got the label {reprlib.repr(value)}")
    return float(value)


class Embedding(Task):
    """One vector a text, for similarity and retrieval."""

    output = "embeddings"
    auto_class = "AutoModel"
    unused = ("pooler.",)
    proportions = ("recall@10",)

    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Padded texts; of pairs, the first and the second as rows of their own, in batches one after the other."""
        unlabelled = Rows([*rows.texts, *rows.pairs], [], [])
        return padded(tokenizer, unlabelled, batch_size, max_tokens)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """There is none: embeddings learn from a teacher."""
        raise ValueError("embeddings are not fine-tuned on labels here; use a distill stage")

    def soft_loss(self, stage: Distill) -> nn.Module:
        """Cosine to the teacher's embedding, and what else of the batch a text is like."""
        return Embeddings("cosine", stage.similarity_weight)

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

    def answers(self, model: nn.Module, test: PairSet) -> np.ndarray[Any, Any]:
        """Cosine and similarity of every pair, or where there are none how high each text ranks its partner."""
        first, second = (
            torch.cat([model(**batch)["embeddings"].cpu() for batch in Progress(part, title="score", unit="batches")])
            for part in (test.first, test.second)
        )
        if test.similarities:
            return np.column_stack([(first * second).sum(1).numpy(), np.array(test.similarities)])
        likeness = first @ second.T
        ranks = (likeness > likeness.diagonal().unsqueeze(1)).sum(1) + 1
        return ranks.unsqueeze(1).numpy()

    def scores_of(self, answers: np.ndarray[Any, Any]) -> dict[str, float]:
        """Rank correlation with the similarities, or mean reciprocal rank and recall."""
        if answers.shape[1] == 2:
            from scipy.stats import spearmanr

            return {"spearman": float(spearmanr(answers[:, 0], answers[:, 1]).statistic)}
        return {"mrr": float((1.0 / answers).mean()), "recall@10": float((answers <= 10).mean())}


class Language(Task):
    """The next token of a text."""

    output = "logits"
    auto_class = "AutoModelForCausalLM"

    def batches(self, tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int) -> list[Batch]:
        """Windows of the texts, with the next tokens as labels (-100 behind the last)."""
        found = windows(tokenizer, rows, batch_size, max_tokens)
        for batch in found:
            none = torch.full_like(batch["input_ids"][:, :1], -100)
            batch["labels"] = torch.cat([batch["input_ids"][:, 1:], none], dim=1)
        return found

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the next tokens."""
        logits = model(**inputs_of(batch))["logits"]
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten().to(logits.device))

    def soft_loss(self, stage: Distill) -> nn.Module:
        """Soft targets from the teacher's largest logits."""
        return TopSoftTargets(stage.temperature, stage.alpha)

    def answers(self, model: nn.Module, test: list[Batch]) -> np.ndarray[Any, Any]:
        """Sum of the losses, and number of tokens, of every window."""
        found = []
        for batch in Progress(test, title="score", unit="batches"):
            logits = model(**inputs_of(batch))["logits"].cpu()
            losses = F.cross_entropy(logits.transpose(1, 2).float(), batch["labels"], reduction="none")
            found.append(torch.stack([losses.double().sum(1), (batch["labels"] != -100).sum(1)], dim=1))
        return torch.cat(found).numpy()

    def scores_of(self, answers: np.ndarray[Any, Any]) -> dict[str, float]:
        """Perplexity, lower is better."""
        losses, tokens = answers.sum(0)
        return {"perplexity": float(np.exp(losses / tokens))}

    def better(self, scores: dict[str, float]) -> float:
        """Minus the perplexity."""
        return -scores["perplexity"]


#: Tasks by name.
TASKS: dict[str, Task] = {"classification": Classification(), "embedding": Embedding(), "language": Language()}
