"""How far a model's outputs moved from those of the dense model: what the search makes small.

Classifiers and language models are judged by the Kullback-Leibler divergence from the dense model's distribution, as in
EvoPress (Sieberling et al., arXiv 2410.14649), embeddings by 1 - cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparsekit.fidelity import evaluating
from sparsekit.progress import Progress
from sparsekit.recipes.data.batches import Batch, inputs_of
from sparsekit.recipes.tasks import TASKS
from sparsekit.recipes.tasks.named_outputs import NamedOutputs

#: Classes of which a language model's distribution is kept; those of the others are one.
_TOP_K = 64
#: Least probability of all other classes together, where sums of float32 leave nothing.
_LEAST = 1e-9


@dataclass(frozen=True)
class _Distributions:
    """Log-probabilities of the dense model's likeliest classes and, in the last column, of all others together."""

    classes: torch.Tensor  # int64, [rows, k]
    log: torch.Tensor  # float32, [rows, k + 1]; without the last column where k are all classes


def _log_probabilities(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of these classes, and of all others together if there are others."""
    log = (logits.gather(1, classes) - logits.logsumexp(1, keepdim=True)).double()
    if classes.shape[1] == logits.shape[1]:
        return log
    others = (1.0 - log.exp().sum(1, keepdim=True)).clamp(min=_LEAST)
    return torch.cat([log, others.log()], dim=1)


def _rows(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Outputs by text, or by token that is no padding, float32, [rows, features]."""
    mask = batch.get("attention_mask")
    if outputs.ndim == 3:
        return (outputs.flatten(0, 1) if mask is None else outputs[mask.to(outputs.device).bool()]).float()
    return outputs.float()


def _cosine_distances(found: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """1 - cosine of vectors of length 1, [rows]."""
    equal = (found == dense).all(1)  # whose length may be 1 but for rounding
    return torch.where(equal, 0.0, 1.0 - (found.double() * dense.double()).sum(1))


class Divergence:
    """Mean divergence of a model from what it was when this was made: 0 if it is the same.

    The dense model's outputs are computed once and kept. Language models are compared on the dense model's likeliest
    classes and all others together, which bounds memory; that is at most the divergence over all classes.

    Args:
        model: a transformers model, dense now; its weights may change afterwards.
        task: a name of `TASKS`.
        batches: keyword arguments of its forward, as the task makes them; labels are not used.
        top_k: how many classes of a distribution are kept, at least 1.

    Raises:
        ValueError: there is no such task, there are no batches, or the model has no finite outputs.
    """

    def __init__(self, model: nn.Module, task: str, batches: Sequence[Batch], *, top_k: int = _TOP_K) -> None:
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
        if not batches:
            raise ValueError("outputs are compared on batches, got none")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self._model = NamedOutputs(model)
        self._output, self._top_k = TASKS[task].output, top_k
        self._batches = [inputs_of(batch) for batch in batches]
        shown = Progress(self._batches, title="dense outputs", unit="batches")
        with evaluating(self._model):
            self._compare = [self._comparison(self._outputs(batch)) for batch in shown]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def _outputs(self, batch: Batch) -> torch.Tensor:
        return _rows(self._model(**batch)[self._output], batch)

    def _comparison(self, dense: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """What compares outputs with these, row by row."""
        if not dense.isfinite().all():
            raise ValueError("the dense model's outputs hold NaN or inf on a batch; there is nothing to compare with")
        if self._output == "embeddings":
            return lambda found: _cosine_distances(found, dense)
        classes = dense.topk(min(self._top_k, dense.shape[1]), dim=1).indices
        log = _log_probabilities(dense, classes)
        return lambda found: (log.exp() * (log - _log_probabilities(found, classes))).sum(1)

    def __call__(self, chosen: Iterable[int] | None = None) -> float:
        """The mean over texts, or over tokens of language models; inf where outputs are not finite.

        Args:
            chosen: numbers of the batches to compare on; None: all.

        Raises:
            ValueError: none is chosen.
        """
        total, rows = 0.0, 0
        with evaluating(self._model):
            for number in range(len(self)) if chosen is None else chosen:
                found = self._compare[number](self._outputs(self._batches[number]))
                total, rows = total + found.sum().item(), rows + len(found)
        if not rows:
            raise ValueError("outputs are compared on at least one batch, got none")
        return total / rows if math.isfinite(total) else math.inf
