"""The layer benchmark: one linear layer, dense and sparse engines, over shapes, sparsities, batches and threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsekit.bench.affinity import limited_to
from sparsekit.bench.ceilings import Ceilings, measure
from sparsekit.bench.environment import environment
from sparsekit.bench.peers import PEERS, Call, Problem, Weight
from sparsekit.bench.weights import WeightSource, random_weight
from sparsekit.timing import Timing, compare

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


#: Seconds that threads of ONNX Runtime and of OpenVINO may go on spinning after a call.
_PAUSE = 0.01


@dataclass(frozen=True)
class Grid:
    """What to measure. Everything for one shape, batch and number of threads is interleaved."""

    shapes: Sequence[tuple[int, int]] = SHAPES
    sparsities: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95)
    batches: Sequence[int] = (1, 16, 128)
    threads: Sequence[int] = (1,)
    engines: Sequence[str] = ("sparsekit", "torch", "onnxruntime", "openvino")
    seconds: float = 1.0  # for each group

    @property
    def groups(self) -> int:
        """Number of groups that are measured one after the other."""
        return len(self.shapes) * len(self.batches) * len(self.threads)


@dataclass(frozen=True)
class Row:
    """One engine on one layer; `sparsity` is None for a dense engine, whose time does not depend on it."""

    out_features: int
    in_features: int
    batch: int
    threads: int
    engine: str
    sparsity: float | None
    nnz: int  # weights that the engine multiplies
    weight_bytes: int  # of the dense or the packed weight; CSR for other sparse engines
    us: float  # median microseconds of a call
    low_us: float  # quartiles
    high_us: float
    noisy: bool


@dataclass(frozen=True)
class _Run:
    """One function of a group."""

    engine: str
    sparsity: float | None
    weight: Weight
    call: Call

    def row(self, batch: int, threads: int, timing: Timing) -> Row:
        us = (timing.median * 1e6, timing.low * 1e6, timing.high * 1e6)
        csr, dense = self.weight.csr, self.weight.dense
        if self.sparsity is None:
            size = dense.size, dense.nbytes
        else:
            size = csr.nnz, self.weight.packed.nbytes if self.engine == "sparsekit" else csr.nbytes
        return Row(*csr.shape, batch, threads, self.engine, self.sparsity, *size, *us, timing.noisy)


def _problem(weight: Weight, batch: int, threads: int) -> Problem:
    numbers = np.random.default_rng(batch)
    bias = numbers.standard_normal(weight.csr.out_features, dtype=np.float32)
    return Problem(weight, bias, numbers.standard_normal((batch, weight.csr.in_features), dtype=np.float32), threads)


def _check(engine: str, call: Call, problem: Problem) -> None:
    """An engine that computes something else must not be measured."""
    first, weight = problem.x[:4].astype(np.float64), problem.weight.dense.astype(np.float64)
    error = np.abs(np.asarray(call())[:4] - (first @ weight.T + problem.bias))
    if not np.all(error <= 1e-5 * (np.abs(first) @ np.abs(weight.T) + np.abs(problem.bias))):
        raise RuntimeError(f"{engine} is off by {error.max():.1e} for {weight.shape}, batch {len(problem.x)}")


def _runs(grid: Grid, weights: dict[float, Weight], batch: int, threads: int) -> list[_Run]:
    """Every engine's function; sparse ones once for each sparsity."""
    problems = {sparsity: _problem(weight, batch, threads) for sparsity, weight in weights.items()}
    runs = []
    for engine in grid.engines:
        peer = PEERS[engine]
        for sparsity in grid.sparsities if peer.sparse else grid.sparsities[:1]:
            call = peer.prepare(problems[sparsity])
            _check(engine, call, problems[sparsity])
            runs.append(_Run(engine, sparsity if peer.sparse else None, weights[sparsity], call))
    return runs


def run(grid: Grid, source: WeightSource = random_weight) -> Iterator[list[Row]]:
    """Measure group by group; number of threads and affinity are put back at the end of each."""
    for shape in grid.shapes:
        weights = {sparsity: Weight(source(shape, sparsity)) for sparsity in grid.sparsities}
        for threads in grid.threads:
            for batch in grid.batches:
                with limited_to(threads):
                    runs = _runs(grid, weights, batch, threads)
                    calls = {str(i): one.call for i, one in enumerate(runs)}
                    timings = compare(calls, seconds=grid.seconds, pause=_PAUSE if threads > 1 else 0.0)
                yield [one.row(batch, threads, timings[str(i)]) for i, one in enumerate(runs)]


def ceilings(grid: Grid) -> list[Ceilings]:
    """Of this machine, for every number of threads of the grid."""
    found = []
    for threads in grid.threads:
        with limited_to(threads):
            found.append(measure())
    return found


def to_dict(rows: Sequence[Row], roof: Sequence[Ceilings], weights: str) -> dict[str, Any]:
    """Rows, ceilings and the environment they were measured in, as plain values; `weights` says where they are from."""
    return {
        "environment": environment(),
        "weights": weights,
        "ceilings": [asdict(one) for one in roof],
        "rows": [asdict(row) for row in rows],
    }
