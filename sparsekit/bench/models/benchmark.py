"""The model benchmark: a whole sparse encoder against dense engines, with a breakdown by operator."""

from __future__ import annotations

import copy
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sparsekit import ops
from sparsekit.bench.affinity import limited_to, pause_for
from sparsekit.bench.layers.weights import mask_structure
from sparsekit.bench.models.peers import MODEL_PEERS, InTorch
from sparsekit.bench.models.problem import Calibration, HiddenState, ModelCall, ModelProblem, random_ids
from sparsekit.bench.peer import answers_wrongly
from sparsekit.fusion.joining import entry_of, joined_with
from sparsekit.nn import SparseLinear
from sparsekit.pruning import finalize, prune
from sparsekit.timing.comparing import Timing, compare

#: Number of calls to profile.
_PROFILED = 10


@dataclass(frozen=True)
class ModelGrid:
    """What to measure. Engines run interleaved for each input and number of threads (a group)."""

    sparsities: Sequence[float] = (0.8, 0.9)
    inputs: Sequence[tuple[int, int]] = ((1, 16), (16, 128))  # batch and tokens of each text
    threads: Sequence[int] = (1,)
    engines: Sequence[str] = ("sparsekit", "sparsekit-engine", "torch", "onnxruntime", "openvino")
    ignore: Sequence[str] = ()  # linear layers to leave dense
    seconds: float = 10.0  # for each input and number of threads

    @property
    def groups(self) -> int:
        """Number of groups, which are measured in sequence."""
        return len(self.inputs) * len(self.threads)


@dataclass(frozen=True)
class ModelRow:
    """Result of one engine on one input; `sparsity` is None for dense engines."""

    batch: int
    tokens: int
    threads: int
    engine: str
    sparsity: float | None
    ms: float  # median milliseconds of a call
    low_ms: float  # quartiles
    high_ms: float
    noisy: bool
    difference: float  # largest absolute difference of the hidden state from torch on the same weights
    operators: dict[str, float]  # milliseconds of a call by operator, most first; of sparse models only
    wrong: bool = False  # whether outputs are wrong on this machine


#: Sparsity and block size of a mask.
Mask: TypeAlias = tuple[float, str]


def _pruned(model: nn.Module, mask: Mask, ignore: Sequence[str]) -> HiddenState:
    pruned = copy.deepcopy(model)
    prune(pruned, mask[0], ignore=ignore, mask_structure=mask_structure(mask[1]))
    return HiddenState(finalize(pruned))


def _difference(call: ModelCall, problem: ModelProblem, engine: str) -> tuple[float, bool]:
    """Largest absolute difference from torch's outputs, and whether it exceeds the tolerance."""
    expected = problem.model(problem.input_ids, problem.attention_mask).numpy()
    difference = np.abs(call() - expected)
    bound = MODEL_PEERS[engine].tolerance * np.abs(expected).max()
    return float(difference.max()), answers_wrongly(engine, difference, bound)


def _timed(function: Callable[..., Any], name: str, spent: defaultdict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        spent[name] += 1e3 * (time.perf_counter() - start)
        return result

    return timed


def _profiled(call: InTorch, spent: defaultdict[str, float]) -> tuple[float, dict[str, float]]:
    """Milliseconds of one call, in total and by operator; sparsekit's operators add their time to `spent`."""
    spent.clear()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        start = time.perf_counter()
        call()
        whole = 1e3 * (time.perf_counter() - start)
    for event in found.key_averages():
        spent[event.key] += event.self_cpu_time_total / 1e3
    spent["python"] = whole - sum(spent.values())
    return whole, dict(sorted(spent.items(), key=lambda item: -item[1]))


def operators(call: InTorch) -> dict[str, float]:
    """Self time of each operator in a call, in milliseconds, descending.

    Torch's operators are timed by its profiler, sparsekit's by a clock.
    "python" is the rest of the call. The fastest of several calls counts.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps the profiler's messages off the progress bar
    spent: defaultdict[str, float] = defaultdict(float)
    for layer in call.model.modules():
        if isinstance(layer, SparseLinear):
            name = "joined_linear" if joined_with(layer) else "linear"
            entry = entry_of(layer)
            setattr(layer, entry, _timed(getattr(layer, entry), f"sparsekit::{name}", spent))
    with ExitStack() as patches:
        for name in ("attention", "add_layer_norm"):
            counted = _timed(getattr(ops, name), f"sparsekit::{name}", spent)
            patches.enter_context(patch.object(ops, name, counted))
        call()
        return min((_profiled(call, spent) for _ in range(_PROFILED)), key=lambda one: one[0])[1]


@dataclass(frozen=True)
class EngineRun:
    """An engine's function to time, in a group."""

    engine: str
    sparsity: float | None
    call: ModelCall
    difference: float
    wrong: bool

    def row(self, batch: int, tokens: int, threads: int, timing: Timing) -> ModelRow:
        """Its measurements."""
        ms = (1e3 * timing.median, 1e3 * timing.low, 1e3 * timing.high)
        spent = operators(self.call) if isinstance(self.call, InTorch) and self.sparsity is not None else {}
        kept = self.engine, self.sparsity, *ms, timing.noisy, self.difference, spent, self.wrong
        return ModelRow(batch, tokens, threads, *kept)


def engine_runs(engine: str, problem: ModelProblem, sparsity: float, asked: Sequence[str]) -> list[EngineRun]:
    """An engine's function; if its outputs are wrong, also its remedy's, unless the remedy is measured anyway."""
    peer = MODEL_PEERS[engine]
    call = peer.prepare(problem)
    difference, wrong = _difference(call, problem, engine)
    runs = [EngineRun(engine, sparsity if peer.sparse else None, call, difference, wrong)]
    if wrong and peer.remedy and peer.remedy not in asked:
        runs += engine_runs(peer.remedy, problem, sparsity, asked)
    return runs


def _runs(problems: dict[Mask, ModelProblem], engines: Sequence[str]) -> list[EngineRun]:
    """Functions of all engines; sparse engines once for each sparsity."""
    runs: list[EngineRun] = []
    for engine in engines:
        peer = MODEL_PEERS[engine]
        fitting = [(sparsity, problem) for (sparsity, block), problem in problems.items() if block == peer.block]
        for sparsity, problem in fitting if peer.sparse else fitting[:1]:
            runs += engine_runs(engine, problem, sparsity, engines)
    return runs


def _group(
    models: dict[Mask, HiddenState], grid: ModelGrid, ids: torch.Tensor, threads: int, calibration: Calibration
) -> list[ModelRow]:
    mask = torch.ones_like(ids)
    problems = {key: ModelProblem(model, ids, mask, threads, calibration) for key, model in models.items()}
    runs = _runs(problems, grid.engines)
    calls = {str(i): one.call for i, one in enumerate(runs)}
    timings = compare(calls, seconds=grid.seconds, pause=pause_for(threads))
    batch, tokens = ids.shape
    return [one.row(batch, tokens, threads, timings[str(i)]) for i, one in enumerate(runs)]


def run(model: nn.Module, grid: ModelGrid, calibration: Calibration = ()) -> Iterator[list[ModelRow]]:
    """Measure a transformers model group by group, the largest number of threads first (see `layers.run`).

    Linear layers are pruned by magnitude: speed is that of a pruned model, outputs are not.

    Args:
        model: a model of `AutoModel`, on the CPU.
        grid: what to measure.
        calibration: token ids of texts for static quantization; empty: the measured inputs.
    """
    blocks = {MODEL_PEERS[engine].block: None for engine in grid.engines}
    masks = [(sparsity, block) for sparsity in grid.sparsities for block in blocks]
    models = {mask: _pruned(model, mask, grid.ignore) for mask in masks}
    config: Any = model.config
    for threads in sorted(grid.threads, reverse=True):
        for batch, tokens in grid.inputs:
            ids = random_ids(batch, tokens, config.vocab_size, config.pad_token_id)
            with limited_to(threads):
                yield _group(models, grid, ids, threads, calibration)
