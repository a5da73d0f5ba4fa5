"""Measure everything on a report page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsekit.bench.models.problem import HiddenState
from sparsekit.bench.report.layers import layers_of
from sparsekit.bench.report.quality import PAGE_TASKS, measured_quality, task_of
from sparsekit.bench.report.subject import Subject, encoder_of, open_model, open_subject
from sparsekit.bench.report.times import ENGINE, Measuring, TimeGrid
from sparsekit.conversion import densify
from sparsekit.engine.sentence_modules import read_modules
from sparsekit.io.hub_cache import local_folder
from sparsekit.progress import Progress, tell
from sparsekit.recipes.report.sizes import disk_bytes, memory_bytes
from sparsekit.report.facts import DENSE, OURS, Facts, ModelSize
from sparsekit.runtime.environment import environment

_SIZES = (
    "Disk: weight files. Memory: the compiled model in sparsekit.engine, weights and buffers in PyTorch; without "
    "activations. The memory of other engines is not measured."
)


@dataclass(frozen=True)
class Request:
    """What to report.

    Args:
        model: a model folder, a name in the local hub cache, or a compiled file.
        dense: folder, or name, of the model before compression; None leaves it out.
        test: table to score on; None scores nothing.
        task: one of `PAGE_TASKS`; None derives it from the model.
        grid: what to time.
        out: the page.
        max_tokens: longer texts of `test` are truncated; None: as `measured_quality` does.
    """

    model: str
    dense: str | None = None
    test: Path | None = None
    task: str | None = None
    grid: TimeGrid = field(default_factory=TimeGrid)
    out: Path = Path("report.html")
    max_tokens: int | None = None

    @property
    def command(self) -> str:
        """Command that reproduces the page."""
        given: list[tuple[str, Any]] = [
            ("--dense", self.dense),
            ("--test", self.test),
            ("--task", self.task),
            ("--max-tokens", self.max_tokens),
            ("--out", self.out),
        ]
        given += [("--input", f"{texts}x{tokens}") for texts, tokens in self.grid.inputs]
        given += [("--threads", threads) for threads in self.grid.threads]
        given += [("--engine", engine) for engine in self.grid.engines]
        given += [("--seconds", self.grid.seconds)]
        options = [str(text) for option in given if option[1] is not None for text in option]
        return shlex.join(["sparsekit", "report", self.model, *options])


def _disk(folder: Path) -> int:
    return disk_bytes(read_modules(folder).encoder)


def _sizes(subject: Subject, dense: Path | None) -> Iterator[ModelSize]:
    disk = subject.path.stat().st_size if subject.folder is None else _disk(subject.folder)
    if subject.compiled is not None:
        yield ModelSize(f"{OURS}, {ENGINE}", disk, subject.compiled.size)
    if subject.model is not None:
        yield ModelSize(f"{OURS}, PyTorch", disk, memory_bytes(subject.model))
    if dense is not None:
        yield ModelSize(DENSE, _disk(dense), memory_bytes(densify(open_model(dense))))


def _about_engines(subject: Subject, dense: Path | None, measuring: Measuring) -> Iterator[str]:
    if dense is not None:
        yield f"Dense engines run {dense}, the model before compression."
    elif subject.folder is not None:
        yield "Dense engines run this model's own weights, zeros included, in dense layers."
    yield "Inputs are random token ids. Difference: largest absolute difference of hidden states from PyTorch."
    yield from (f"Left out: {engine} does not run this model ({why})." for engine, why in measuring.refused.items())


def _about_layers(subject: Subject) -> Iterator[str]:
    if subject.compiled is None:
        yield f"As PyTorch has them: sparsekit.engine does not run this model ({subject.refusal})."
    else:
        yield "As sparsekit.engine packs them."


def _unknown(request: Request, subject: Subject) -> Iterator[str]:
    if request.dense is None:
        what = "The dense model" if subject.folder is not None else "The dense model and other engines"
        yield f"{what}: --dense MODEL adds quality, speed and size of the model before compression."
    if request.test is None:
        yield "Quality: --test FILE adds scores on labeled texts, with --dense the paired difference."


def _check(request: Request) -> None:
    if request.task is not None and request.task not in PAGE_TASKS:
        raise ValueError(f"task must be one of {', '.join(PAGE_TASKS)}, got {request.task!r}; measure a language model "
                         "with sparsekit bench language")  # fmt: skip
    if request.test is not None and not request.test.exists():
        raise FileNotFoundError(f"{request.test} does not exist; expected a table of texts")


def measured(request: Request) -> Facts:
    """Measure a model for its report page.

    Raises:
        FileNotFoundError: a model or the table does not exist.
        ValueError: a model is damaged, or a language model; model, task and table do not fit each other; inputs are
            longer than the model's.
        RuntimeError: outputs of one of our engines differ from PyTorch's.
    """
    _check(request)
    subject = open_subject(request.model)
    dense = None if request.dense is None else local_folder(request.dense)
    layers = layers_of(subject)
    baseline = None if dense is None else HiddenState(densify(encoder_of(open_model(dense))))
    measuring = Measuring(subject, baseline, layers, request.grid)
    quality = None
    if request.test is not None:
        tell("score the model" if dense is None else "score the model and the dense one")
        quality = measured_quality(
            subject, dense, request.test, request.task or task_of(subject, dense), request.max_tokens
        )
    groups = Progress(measuring.run(), title="measure speed", unit="inputs", total=request.grid.groups)
    times = [time for group in groups for time in group]
    return Facts(
        subject.path.name,
        environment(),
        [request.command],
        times=times,
        time_remarks=list(_about_engines(subject, dense, measuring)),
        quality=quality,
        layers=layers,
        layer_remarks=list(_about_layers(subject)),
        sizes=list(_sizes(subject, dense)),
        size_remarks=[_SIZES],
        unknown=list(_unknown(request, subject)),
    )
