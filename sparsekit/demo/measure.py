"""Accuracy and speed of the demo's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from typing import Any

import torch
from torch import nn

from sparsekit.demo.data import Batch
from sparsekit.progress import Progress
from sparsekit.timing.comparing import compare

#: Sentences in the batches whose throughput is measured.
THROUGHPUT_BATCH = 32


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Sequence[Batch], title: str) -> float:
    """Fraction of sentences classified right."""
    right = total = 0
    for batch in Progress(batches, title=title, unit="batches"):
        guesses = model(**batch.inputs).logits.argmax(1)
        right += int((guesses == batch.labels).sum())
        total += len(batch.labels)
    return right / total


class _Runner:
    """Runs a model on the next of its inputs at every call; all models get the same inputs in the same order."""

    def __init__(self, model: nn.Module, inputs: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self.model = model
        self.inputs = cycle(inputs)

    def __call__(self) -> None:
        self.model(**next(self.inputs))


@torch.inference_mode()
def speed(
    models: Mapping[str, nn.Module],
    single: Sequence[Batch],
    batched: Sequence[Batch],
    *,
    threads: Sequence[int],
    seconds: float,
) -> list[dict[str, Any]]:
    """Time the models against each other, one sentence at a time and in batches.

    Args:
        models: name -> model.
        single: batches of one sentence.
        batched: batches of `THROUGHPUT_BATCH` sentences.
        threads: numbers of threads to measure with.
        seconds: time for everything.

    Returns:
        One entry a number of threads and kind of input: median seconds and quartiles of every model.
    """
    before = torch.get_num_threads()
    rows = []
    cells = [(count, kind) for count in threads for kind in ("one sentence", f"batch of {THROUGHPUT_BATCH}")]
    try:
        for count, kind in Progress(cells, title="measure speed, interleaved", unit="settings"):
            torch.set_num_threads(count)
            inputs = [batch.inputs for batch in (single if kind == "one sentence" else batched)]
            runners = {name: _Runner(model, inputs) for name, model in models.items()}
            timings = compare(runners, seconds=seconds / len(cells))
            rows.append(
                {"threads": count, "kind": kind, "seconds": {name: asdict(timing) for name, timing in timings.items()}}
            )
    finally:
        torch.set_num_threads(before)
    return rows
