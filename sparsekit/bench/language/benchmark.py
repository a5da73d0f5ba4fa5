"""Measure engines on a language model: prefill, decode of one and of four sequences, memory, bytes on disk."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsekit.bench.language.engines import SEQUENCES
from sparsekit.bench.language.models import Candidate, candidates
from sparsekit.bench.language.process import EngineProcess
from sparsekit.io.file_names import CONFIG
from sparsekit.progress import Progress
from sparsekit.runtime.environment import environment

#: Timings whose interquartile range exceeds this fraction of the median are noisy.
_NOISY = 0.25
#: Prompt length before decoding, in tokens.
_SHORT = 32


@dataclass(frozen=True)
class LanguageGrid:
    """What to measure. Engines run interleaved, in rounds, each in a new random order."""

    sparsities: Sequence[float] = (0.5, 0.7)
    prompt: int = 512  # prompt lengths, in tokens
    new_tokens: int = 64
    threads: Sequence[int] = (1,)
    engines: Sequence[str] = ("sparsekit-engine-int8", "sparsekit-engine-int4", "llama.cpp-Q8_0", "llama.cpp-Q4_0")
    embeddings: str | None = None  # type in sparsekit's engine: "int8" or "int4"; None: as its layers
    rounds: int = 7

    @property
    def context(self) -> int:
        """Context length that every engine is opened with."""
        return max(self.prompt, _SHORT) + self.new_tokens


@dataclass(frozen=True)
class Speed:
    """Tokens per second."""

    median: float
    low: float  # quartiles
    high: float

    @classmethod
    def of(cls, tokens: int, seconds: Sequence[float]) -> Speed:
        """Median and quartiles over the rounds."""
        low, median, high = (tokens / value for value in np.quantile(seconds, [0.75, 0.5, 0.25]).tolist())
        return cls(median, low, high)

    @property
    def noisy(self) -> bool:
        """Whether the interquartile range is large."""
        return self.high - self.low > _NOISY * self.median


@dataclass(frozen=True)
class LanguageRow:
    """One engine with one model."""

    engine: str
    sparsity: float | None
    threads: int
    prefill: Speed  # time to first token
    decode: Speed
    decode_many: Speed  # in a batch of `SEQUENCES`, summed over them
    resident_bytes: int | None  # resident, after a prefill and a decode
    file_bytes: int
    token: int  # first token after the long prompt

    @property
    def noisy(self) -> bool:
        """Whether one of its speeds is noisy."""
        return self.prefill.noisy or self.decode.noisy or self.decode_many.noisy


@dataclass
class _Seconds:
    """Times of a candidate, by round."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    decode_many: list[float] = field(default_factory=list)
    resident_bytes: int | None = None
    token: int = 0


def _prompts(vocabulary: int, count: int, tokens: int) -> list[list[int]]:
    numbers = random.Random(tokens)  # noqa: S311 - any tokens will do
    return [[numbers.randrange(vocabulary) for _ in range(tokens)] for _ in range(count)]


def _measure(process: EngineProcess, grid: LanguageGrid, vocabulary: int, seconds: _Seconds) -> None:
    (long,), short = _prompts(vocabulary, 1, grid.prompt), _prompts(vocabulary, SEQUENCES, _SHORT)
    taken, seconds.token = process.first_token(long)
    seconds.prefill.append(taken)
    seconds.decode.append(process.decode(short[:1], grid.new_tokens))
    if seconds.resident_bytes is None:
        seconds.resident_bytes = process.resident_bytes()
    seconds.decode_many.append(process.decode(short, grid.new_tokens))


def _row(candidate: Candidate, grid: LanguageGrid, threads: int, seconds: _Seconds) -> LanguageRow:
    steps = grid.new_tokens - 1
    return LanguageRow(
        candidate.engine,
        candidate.sparsity,
        threads,
        prefill=Speed.of(grid.prompt, seconds.prefill),
        decode=Speed.of(steps, seconds.decode),
        decode_many=Speed.of(steps * SEQUENCES, seconds.decode_many),
        resident_bytes=seconds.resident_bytes,
        file_bytes=candidate.file_bytes,
        token=seconds.token,
    )


def _rows(
    found: Sequence[Candidate], grid: LanguageGrid, threads: int, vocabulary: int, done: Callable[[], None]
) -> list[LanguageRow]:
    """Measure on so many threads; `done` is called after each round."""
    with ExitStack() as stack:
        opened = []
        for one in found:
            process = stack.enter_context(EngineProcess(one.kind, one.model, threads, grid.context))
            opened.append((one, process, _Seconds()))
        for number in range(grid.rounds + 1):
            order = random.Random(number).sample(opened, len(opened))  # noqa: S311 - an order, not a secret
            for _, process, seconds in order:
                # The first round warms up and does not count.
                _measure(process, grid, vocabulary, _Seconds() if number == 0 else seconds)
            done()
        return [_row(one, grid, threads, seconds) for one, _, seconds in opened]


def measure(found: Sequence[Candidate], grid: LanguageGrid, vocabulary: int) -> list[LanguageRow]:
    """Measure engines interleaved, most threads first, with a progress bar.

    Args:
        found: the engines with their models.
        grid: what to measure.
        vocabulary: size of the vocabulary, to draw prompts from.

    Returns:
        A row for each engine and model, for each number of threads.

    Raises:
            RuntimeError: an engine's process ended.
    """
    bar: Progress[None] = Progress(title="measure", unit="rounds", total=(grid.rounds + 1) * len(grid.threads))
    rows: list[LanguageRow] = []
    try:
        for threads in sorted(grid.threads, reverse=True):
            rows += _rows(found, grid, threads, vocabulary, bar.update)
    finally:
        bar.close()
    return rows


def measured(folder: Path, name: str, grid: LanguageGrid, work: Path) -> dict[str, Any]:
    """Write the models of all engines and measure them.

    Args:
        folder: a dense causal model of transformers. Weights are pruned by magnitude: speed is that of a pruned model,
            quality is not.
        name: name of the model in tables.
        grid: what to measure.
        work: folder for the engines' models; existing ones are reused.

    Returns:
        Environment, grid and rows, as JSON types.

    Raises:
        ValueError: an engine does not run the model.
        RuntimeError: an engine ended.
    """
    found = candidates(folder, grid.engines, grid.sparsities, grid.embeddings, work)
    rows = measure(found, grid, json.loads((folder / CONFIG).read_text())["vocab_size"])
    stored = [asdict(row) | {"noisy": row.noisy} for row in rows]
    return {"environment": environment(), "model": name, "grid": asdict(grid), "rows": stored}
