"""Time a model and dense engines on inputs of fixed sizes, interleaved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sparsekit.bench.affinity import limited_to, pause_for
from sparsekit.bench.models.benchmark import engine_runs, operators
from sparsekit.bench.models.peers import DENSE_ENGINES, MODEL_PEERS, TOLERANCES, InTorch, encoder_call
from sparsekit.bench.models.problem import HiddenState, ModelCall, ModelProblem, random_ids
from sparsekit.bench.peer import answers_wrongly
from sparsekit.bench.report.subject import Subject
from sparsekit.bench.summary import in_int8
from sparsekit.conversion.report import LEAST_ZEROS
from sparsekit.fusion import fuse
from sparsekit.nn import SparseLinear
from sparsekit.pruning import pruning_report
from sparsekit.report.facts import EngineTime, LayerFacts
from sparsekit.timing.comparing import Timing, compare

ENGINE, IN_TORCH = "sparsekit.engine", "sparsekit in PyTorch"


@dataclass(frozen=True)
class TimeGrid:
    """What to measure. All engines are interleaved for each input and number of threads."""

    inputs: Sequence[tuple[int, int]] = ((1, 16), (16, 128))  # texts, tokens per text
    threads: Sequence[int] = (1,)
    engines: Sequence[str] = DENSE_ENGINES  # that run the dense model
    seconds: float = 10.0  # for each input and number of threads

    @property
    def groups(self) -> int:
        """Number of interleaved measurements."""
        return len(self.inputs) * len(self.threads)


@dataclass(frozen=True)
class _Candidate:
    engine: str
    kind: str
    call: ModelCall
    difference: float | None = None
    wrong: bool = False

    def time(self, ids: torch.Tensor, threads: int, timing: Timing) -> EngineTime:
        texts, tokens = ids.shape
        ms = [1e3 * seconds for seconds in (timing.median, timing.low, timing.high)]
        spent = operators(self.call) if self.engine == IN_TORCH and isinstance(self.call, InTorch) else {}
        measured = (ms[0], (ms[1], ms[2]), timing.noisy, self.wrong, self.difference, spent)
        return EngineTime(self.engine, self.kind, texts, tokens, threads, *measured)


@dataclass
class Measuring:
    """Measures a model.

    Args:
        subject: the model.
        dense: encoder for dense engines; None for the model itself with every layer dense.
        layers: layers of the model.
        grid: what to measure.

    `refused` maps engines that do not run the model to the reason.
    """

    subject: Subject
    dense: HiddenState | None
    layers: Sequence[LayerFacts]
    grid: TimeGrid
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._itself = self.subject.dense_encoder()
        self._baseline = self.dense or self._itself
        self._check_inputs()
        if self.subject.refusal:
            self.refused[ENGINE] = self.subject.refusal

    def _configs(self) -> list[Any]:
        models = [model.model for model in (self._itself, self._baseline) if model is not None]
        return [model.config for model in models]

    def _check_inputs(self) -> None:
        """Raise ValueError if an input is longer than a model's positions."""
        most = [getattr(config, "max_position_embeddings", None) for config in self._configs()]
        most += [] if self.subject.core is None else [self.subject.core.max_tokens]
        known = [count for count in most if count is not None and count > 0]
        longest = max(tokens for _, tokens in self.grid.inputs)
        if known and longest > min(known):
            raise ValueError(f"the model reads {min(known)} tokens at most, got an input of {longest}; give --input")

    def _ids(self, texts: int, tokens: int) -> torch.Tensor:
        configs = self._configs()
        sizes = [config.vocab_size for config in configs]
        sizes += [] if self.subject.core is None else [self.subject.core.vocabulary]
        padding = next((config.pad_token_id for config in configs), None)
        return random_ids(texts, tokens, min(sizes), padding)

    def _checked(self, engine: str, kind: str, call: ModelCall, problem: ModelProblem | None) -> _Candidate:
        """Compare its outputs with PyTorch's."""
        if problem is None:
            return _Candidate(engine, kind, call)
        expected = problem.model(problem.input_ids, problem.attention_mask).numpy()
        difference = np.abs(call() - expected)
        tolerance = max(TOLERANCES.get(layer.dtype, TOLERANCES["int8"]) for layer in self.layers)
        wrong = answers_wrongly(engine, difference, tolerance * np.abs(expected).max())
        return _Candidate(engine, kind, call, float(difference.max()), wrong)

    def _ours(self, ids: torch.Tensor, threads: int) -> Iterator[_Candidate]:
        problem = None if self._itself is None else ModelProblem(self._itself, ids, torch.ones_like(ids), threads)
        if self.subject.core is not None:
            call = encoder_call(self.subject.core, ids, torch.ones_like(ids))
            yield self._checked(ENGINE, "ours", call, problem)
        if problem is not None and (in_torch := self._in_torch(problem)) is not None:
            yield self._checked(IN_TORCH, "ours", in_torch, problem)

    def _in_torch(self, problem: ModelProblem) -> ModelCall | None:
        """Model with its sparse layers, or converted if it is dense with zeros; None without zeros."""
        encoder = self.subject.encoder()
        if encoder is not None and any(isinstance(module, SparseLinear) for module in encoder.modules()):
            return InTorch(HiddenState(fuse(encoder)), problem)
        zeros = any(layer.sparsity >= LEAST_ZEROS for layer in pruning_report(problem.model).layers)
        return MODEL_PEERS["sparsekit"].prepare(problem) if zeros else None

    def _peers(self, ids: torch.Tensor, threads: int) -> Iterator[_Candidate]:
        if self._baseline is None:
            return
        problem = ModelProblem(self._baseline, ids, torch.ones_like(ids), threads)
        for engine in self.grid.engines:
            if engine in self.refused:
                continue
            try:
                runs = engine_runs(engine, problem, 0.0, self.grid.engines)
            except Exception as error:  # noqa: BLE001 - exporters and engines raise many types on models they do not run
                self.refused[engine] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.300}"
                continue
            for run in runs:
                kind = "int8" if in_int8(run.engine) else "float32"
                yield _Candidate(run.engine, kind, run.call, run.difference, run.wrong)

    def _group(self, ids: torch.Tensor, threads: int) -> list[EngineTime]:
        candidates = [*self._ours(ids, threads), *self._peers(ids, threads)]
        calls = {str(number): one.call for number, one in enumerate(candidates)}
        timings = compare(calls, seconds=self.grid.seconds, pause=pause_for(threads)) if calls else {}
        return [one.time(ids, threads, timings[str(number)]) for number, one in enumerate(candidates)]

    def run(self) -> Iterator[list[EngineTime]]:
        """Measure group by group, most threads first."""
        for threads in sorted(self.grid.threads, reverse=True):
            for texts, tokens in self.grid.inputs:
                with limited_to(threads):
                    yield self._group(self._ids(texts, tokens), threads)
