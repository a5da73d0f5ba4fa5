"""The layer benchmark: one linear layer, dense and sparse engines, over shapes, sparsities, batches and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from sparsekit.bench.affinity import limited_to, pause_for
from sparsekit.bench.layers.ceilings import Ceilings, measure
from sparsekit.bench.layers.peers import PEERS
from sparsekit.bench.layers.problem import Call, Problem, Weight
from sparsekit.bench.layers.random_weights import random_weight
from sparsekit.bench.layers.weights import WeightSource
from sparsekit.bench.peer import answers_wrongly, is_ours
from sparsekit.bench.summary import Group
from sparsekit.timing.comparing import Timing, compare

#: Linear layers of MiniLM, BERT-base and a 7B language model, (out_features, in_features).
SHAPES: tuple[tuple[int, int], ...] = (
    (384, 384),
    (1536, 384),
    (384, 1536),
    (768, 768),
    (3072, 768),
    (768, 3072),
    (4096, 4096),
    (11008, 4096),
)


#: How many output features and tokens are checked against float64, including the first and last.
_CHECKED_FEATURES = 301
_CHECKED_TOKENS = 7


@dataclass(frozen=True)
class Grid:
    """What to measure. Engines run interleaved for each shape, batch and number of threads (a group)."""

    shapes: Sequence[tuple[int, int]] = SHAPES
    sparsities: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95)
    batches: Sequence[int] = (1, 16, 128)
    threads: Sequence[int] = (1,)
    engines: Sequence[str] = ("sparsekit", "torch", "onnxruntime", "openvino")
    seconds: float = 1.0  # for each group

    @property
    def groups(self) -> int:
        """Number of groups, which are measured in sequence."""
        return len(self.shapes) * len(self.batches) * len(self.threads)


@dataclass(frozen=True)
class Row:
    """Result of one engine on one layer; `sparsity` is None for dense engines."""

    out_features: int
    in_features: int
    batch: int
    threads: int
    engine: str
    sparsity: float | None
    nnz: int  # nonzeros, or all weights of a dense engine
    weight_bytes: int  # of the dense or packed weight; of CSR for other sparse engines
    us: float  # median microseconds of a call
    low_us: float  # quartiles
    high_us: float
    noisy: bool
    wrong: bool = False  # whether outputs are wrong on this machine


@dataclass(frozen=True)
class _Run:
    """An engine's function to time, in a group."""

    engine: str
    sparsity: float | None
    weight: Weight
    call: Call
    wrong: bool

    def row(self, batch: int, threads: int, timing: Timing) -> Row:
        us = (timing.median * 1e6, timing.low * 1e6, timing.high * 1e6)
        csr, dense = self.weight.csr, self.weight.dense
        if self.sparsity is None:
            size = dense.size, dense.nbytes
        else:
            packed = self.weight.packed(PEERS[self.engine].dtype) if is_ours(self.engine) else csr
            size = csr.nnz, packed.nbytes
        return Row(*csr.shape, batch, threads, self.engine, self.sparsity, *size, *us, timing.noisy, self.wrong)


def _problem(weight: Weight, batch: int, threads: int) -> Problem:
    numbers = np.random.default_rng(batch)
    bias = numbers.standard_normal(weight.csr.out_features, dtype=np.float32)
    return Problem(weight, bias, numbers.standard_normal((batch, weight.csr.in_features), dtype=np.float32), threads)


def _is_wrong(engine: str, call: Call, problem: Problem) -> bool:
    """Whether an engine's outputs are wrong: checks some tokens and features against float64."""
    features = np.unique(np.linspace(0, problem.bias.size - 1, _CHECKED_FEATURES, dtype=np.int64))
    tokens = np.unique(np.linspace(0, len(problem.x) - 1, _CHECKED_TOKENS, dtype=np.int64))
    x, weight = problem.x[tokens].astype(np.float64), problem.weight.dense[features].astype(np.float64)
    error = np.abs(np.asarray(call())[np.ix_(tokens, features)] - (x @ weight.T + problem.bias[features]))
    magnitudes = np.abs(x) @ np.abs(weight.T) + np.abs(problem.bias[features])
    return answers_wrongly(engine, error, PEERS[engine].tolerance * magnitudes)


#: Sparsity and block size of a mask.
Mask: TypeAlias = tuple[float, str]


def _masks(grid: Grid) -> list[Mask]:
    """Masks needed by the engines of a grid."""
    blocks = {PEERS[engine].block: None for engine in grid.engines}
    return [(sparsity, block) for sparsity in grid.sparsities for block in blocks]


def _engine_runs(engine: str, weight: Weight, problem: Problem, sparsity: float, asked: Sequence[str]) -> list[_Run]:
    """An engine's function; if its outputs are wrong, also its remedy's, unless the remedy is measured anyway."""
    peer = PEERS[engine]
    call = peer.prepare(problem)
    wrong = _is_wrong(engine, call, problem)
    runs = [_Run(engine, sparsity if peer.sparse else None, weight, call, wrong)]
    if wrong and peer.remedy and peer.remedy not in asked:
        runs += _engine_runs(peer.remedy, weight, problem, sparsity, asked)
    return runs


def _runs(grid: Grid, weights: dict[Mask, Weight], batch: int, threads: int) -> list[_Run]:
    """Functions of all engines; sparse engines once for each sparsity."""
    problems = {mask: _problem(weight, batch, threads) for mask, weight in weights.items()}
    runs: list[_Run] = []
    for engine in grid.engines:
        peer = PEERS[engine]
        for sparsity in grid.sparsities if peer.sparse else grid.sparsities[:1]:
            mask = sparsity, peer.block
            runs += _engine_runs(engine, weights[mask], problems[mask], sparsity, grid.engines)
    return runs


def run(
    grid: Grid, source: WeightSource = random_weight, known: Mapping[Group, list[Row]] = MappingProxyType({})
) -> Iterator[list[Row]]:
    """Measure group by group; threads and affinity are restored after each group.

    The largest number of threads comes first: OpenVINO's runtime never uses more processors than at its first call.

    Args:
        grid: what to measure.
        source: makes the weights.
        known: groups measured by an earlier run, which are skipped.
    """
    for shape in grid.shapes:
        weights: dict[Mask, Weight] = {}
        for threads in sorted(grid.threads, reverse=True):
            for batch in grid.batches:
                group = Group(*shape, batch, threads)
                if group in known:
                    yield known[group]
                    continue
                weights = weights or {mask: Weight(source(shape, *mask), mask[1]) for mask in _masks(grid)}
                yield _measure(grid, weights, group)


def _measure(grid: Grid, weights: dict[Mask, Weight], group: Group) -> list[Row]:
    with limited_to(group.threads):
        runs = _runs(grid, weights, group.batch, group.threads)
        calls = {str(i): one.call for i, one in enumerate(runs)}
        timings = compare(calls, seconds=grid.seconds, pause=pause_for(group.threads))
    return [one.row(group.batch, group.threads, timings[str(i)]) for i, one in enumerate(runs)]


def ceilings(grid: Grid) -> list[Ceilings]:
    """Peak FLOP/s and bandwidth of this machine, for every number of threads in the grid."""
    found = []
    for threads in grid.threads:
        with limited_to(threads):
            found.append(measure())
    return found
