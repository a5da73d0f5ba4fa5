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

#: Quartiles further apart than this part of the median are called noisy.
_NOISY = 0.25
#: Tokens of the prompt that decoding goes on from.
_SHORT = 32


@dataclass(frozen=True)
class LanguageGrid:
    """What to measure. All engines are measured interleaved, in shuffled order, round after round."""

    sparsities: Sequence[float] = (0.5, 0.7)
    prompt: int = 512  # tokens of a prefill
    new_tokens: int = 64
    threads: Sequence[int] = (1,)
    engines: Sequence[str] = ("sparsekit-engine-int8", "sparsekit-engine-int4", "llama.cpp-Q8_0", "llama.cpp-Q4_0")
    embeddings: str | None = None  # of our engine: "int8" or "int4"; None: as its layers
    rounds: int = 7

    @property
    def context(self) -> int:
        """Tokens that every engine has room for."""
        return max(self.prompt, _SHORT) + self.new_tokens


@dataclass(frozen=True)
class Speed:
    """Tokens a second."""

    median: float
    low: float  # quartiles
    high: float

    @classmethod
    def of(cls, tokens: int, seconds: Sequence[float]) -> Speed:
        """From the times of several rounds."""
        low, median, high = (tokens / value for value in np.quantile(seconds, [0.75, 0.5, 0.25]).tolist())
        return cls(median, low, high)

    @property
    def noisy(self) -> bool:
        """Whether the quartiles are far apart."""
        return self.high - self.low > _NOISY * self.median


@dataclass(frozen=True)
class LanguageRow:
    """One engine with one model."""

    engine: str
    sparsity: float | None
    threads: int
    prefill: Speed  # until the first token is known
    decode: Speed
    decode_many: Speed  # of `SEQUENCES` at once, all together
    resident_bytes: int | None  # after a prefill and a decode
    file_bytes: int
    token: int  # that follows the long prompt

    @property
    def noisy(self) -> bool:
        """Whether one of its speeds is."""
        return self.prefill.noisy or self.decode.noisy or self.decode_many.noisy


@dataclass
class _Seconds:
    """What a candidate took, round by round."""

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
                # The first round warms caches up and does not count.
                _measure(process, grid, vocabulary, _Seconds() if number == 0 else seconds)
            done()
        return [_row(one, grid, threads, seconds) for one, _, seconds in opened]


def measure(found: Sequence[Candidate], grid: LanguageGrid, vocabulary: int) -> list[LanguageRow]:
    """Measure engines interleaved, most threads first, with a progress bar.

    Args:
        found: the engines with their models.
        grid: what to measure of them.
        vocabulary: prompts are of tokens below this.

    Returns:
        A row for each, in order, for each number of threads.

    Raises:
        RuntimeError: an engine ended.
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
    """Make the models of all engines and measure them.

    Args:
        folder: a causal model of transformers, dense; weights are pruned by magnitude, so that times are those of a
            pruned model, and what it writes is not.
        name: of the model, for the tables.
        grid: what to measure.
        work: folder for the models of the engines; what is there is used again.

    Returns:
        Environment, grid and rows, as JSON has them.

    Raises:
        ValueError: an engine does not run the model.
        RuntimeError: an engine ended.
    """
    found = candidates(folder, grid.engines, grid.sparsities, grid.embeddings, work)
    rows = measure(found, grid, json.loads((folder / CONFIG).read_text())["vocab_size"])
    stored = [asdict(row) | {"noisy": row.noisy} for row in rows]
    return {"environment": environment(), "model": name, "grid": asdict(grid), "rows": stored}
