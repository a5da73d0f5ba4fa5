"""The demo from start to end: teacher, sparse student, measurements, report."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from sparsekit.conversion import conversion_report, convert
from sparsekit.demo import report
from sparsekit.demo.data import Batch, Splits, load_splits, make_batches
from sparsekit.demo.measure import THROUGHPUT_BATCH, accuracy, speed
from sparsekit.demo.model import SentenceClassifier, load_minilm
from sparsekit.demo.settings import Settings
from sparsekit.demo.training import IGNORE, distill_student, prune_student, train_teacher
from sparsekit.io.atomic_file import write_atomically, write_json
from sparsekit.pruning import finalize
from sparsekit.runtime.environment import environment

#: Sentences that are timed one by one.
_SINGLE_SENTENCES = 64


class _Stages:
    """How long each part of the run took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _speed_inputs(tokenizer: Any, splits: Splits, settings: Settings) -> tuple[list[Batch], list[Batch]]:
    """Test sentences one by one, and in batches as they come, of mixed lengths."""
    single = make_batches(tokenizer, splits.test[:_SINGLE_SENTENCES], 1, settings.max_tokens)
    batched = [
        make_batches(tokenizer, splits.test[first : first + THROUGHPUT_BATCH], THROUGHPUT_BATCH, settings.max_tokens)[0]
        for first in range(0, len(splits.test) - THROUGHPUT_BATCH + 1, THROUGHPUT_BATCH)
    ]
    return single, batched


def run_demo(settings: Settings, out: Path, console: Console) -> dict[str, Any]:
    """Run the demo and write `result.json`, `table.md` and `plot.png` to `out`.

    Returns:
        What `result.json` holds.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    stages = _Stages()
    with stages.stage("load"), console.status("load MiniLM and the sentences"):
        splits = load_splits(settings)
        encoder, tokenizer = load_minilm()
        parts = {"train": splits.train, "test": splits.test, "far": splits.far}
        batches = {
            name: make_batches(tokenizer, part, settings.batch_size, settings.max_tokens)
            for name, part in parts.items()
        }
        teacher = SentenceClassifier(encoder)
    console.print(
        f"MiniLM (22.7 M parameters) on {len(splits.train)} sentences; "
        f"{len(splits.test)} others to test on; student at {settings.sparsity:.0%} sparsity"
    )

    def scores(model: nn.Module, name: str) -> dict[str, float]:
        return {
            "accuracy": accuracy(model, batches["test"], f"test the {name}"),
            "accuracy_far": accuracy(model, batches["far"], f"test the {name} on IMDB"),
        }

    with stages.stage("train_teacher"):
        train_teacher(teacher, batches["train"], settings)
    with stages.stage("prune_student"):
        student = prune_student(teacher, batches["train"], settings)
    with stages.stage("test_teacher_and_pruned"):
        teacher_scores = scores(teacher, "teacher")
        pruned_accuracy = accuracy(student, batches["test"], "test the student before it learns")
    with stages.stage("distill_student"):
        distill_student(student, teacher, batches["train"], settings)
    finalize(student)
    dense_self, student_int8 = copy.deepcopy(student), copy.deepcopy(student)
    converted = conversion_report(convert(student, ignore=IGNORE, min_sparsity=0.0))
    converted_int8 = conversion_report(convert(student_int8, ignore=IGNORE, min_sparsity=0.0, dtype="int8"))
    with stages.stage("test_student"):
        dense_scores, student_scores = scores(dense_self, "student"), scores(student, "converted student")
        int8_scores = scores(student_int8, "student in int8")
    with stages.stage("measure_speed"):
        single, batched = _speed_inputs(tokenizer, splits, settings)
        rows = speed(
            {"teacher": teacher, "dense_self": dense_self, "sparse": student, "sparse_int8": student_int8},
            single,
            batched,
            threads=sorted({1, torch.get_num_threads()}),
            seconds=settings.timing_seconds,
        )
    result = {
        "environment": environment(),
        "settings": asdict(settings),
        "sparsity": settings.sparsity,
        "train_sentences": len(splits.train),
        "test_sentences": len(splits.test),
        "teacher": {**teacher_scores, "linear_bytes": converted.bytes_before},
        "student_dense": {**dense_scores, "linear_bytes": converted.bytes_before},
        "student": {**student_scores, "linear_bytes": converted.bytes_after},
        "student_int8": {**int8_scores, "linear_bytes": converted_int8.bytes_after},
        "pruned_accuracy_before_distillation": pruned_accuracy,
        "speed": rows,
        "stage_seconds": stages.seconds,
    }
    write_json(out / "result.json", result)
    write_atomically(out / "table.md", lambda path: path.write_text(report.markdown(result) + "\n"))
    report.plot(result, out / "plot.png")
    report.show(result, out, console)
    return result
