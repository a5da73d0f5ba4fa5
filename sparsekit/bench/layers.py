"""The layer benchmark: dense torch against sparse kernels over shapes, sparsities, batches and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from sparsekit import runtime
from sparsekit.bench.environment import environment
from sparsekit.bench.timing import compare
from sparsekit.nn import SparseLinear
from sparsekit.pruning import finalize, prune

#: Linear layers of MiniLM and of BERT-base, (out_features, in_features).
SHAPES: tuple[tuple[int, int], ...] = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))


@dataclass(frozen=True)
class Grid:
    """What to measure; every combination is one cell."""

    shapes: Sequence[tuple[int, int]] = SHAPES
    sparsities: Sequence[float] = (0.5, 0.8, 0.9)
    batches: Sequence[int] = (1, 8, 32, 128)
    threads: Sequence[int] = (1,)
    layouts: Sequence[str] = runtime.LAYOUTS
    seconds: float = 0.3  # for each cell

    @property
    def cells(self) -> int:
        """Number of measurements, each of all layouts together."""
        return len(self.shapes) * len(self.sparsities) * len(self.batches) * len(self.threads)


@dataclass(frozen=True)
class Cell:
    """One measurement: dense torch and one layout, interleaved in one process."""

    out_features: int
    in_features: int
    sparsity: float
    batch: int
    threads: int
    layout: str
    dense_us: float  # median microseconds of a call
    sparse_us: float
    sparse_low_us: float  # quartiles
    sparse_high_us: float
    gflops: float  # of the nonzeros
    weight_bytes: int
    noisy: bool

    @property
    def speedup(self) -> float:
        """How many times faster than dense."""
        return self.dense_us / self.sparse_us


def pruned_linear(out_features: int, in_features: int, sparsity: float) -> nn.Linear:
    """A random layer without its smallest weights."""
    layer = nn.Linear(in_features, out_features)
    prune(nn.Sequential(layer), sparsity)
    finalize(layer)
    return layer


def _caller(layer: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: layer(x)


def _measure(dense: nn.Linear, sparse: dict[str, SparseLinear], sparsity: float, batch: int, grid: Grid) -> list[Cell]:
    x = torch.randn(batch, dense.in_features)
    functions = {name: _caller(layer, x) for name, layer in sparse.items()}
    with torch.inference_mode():
        timings = compare({"dense": _caller(dense, x), **functions}, seconds=grid.seconds)
    return [
        Cell(
            out_features=dense.out_features,
            in_features=dense.in_features,
            sparsity=sparsity,
            batch=batch,
            threads=torch.get_num_threads(),
            layout=name,
            dense_us=timings["dense"].median * 1e6,
            sparse_us=timings[name].median * 1e6,
            sparse_low_us=timings[name].low * 1e6,
            sparse_high_us=timings[name].high * 1e6,
            gflops=2 * layer.nnz * batch / timings[name].median / 1e9,
            weight_bytes=layer.packed.numel(),
            noisy=timings[name].noisy or timings["dense"].noisy,
        )
        for name, layer in sparse.items()
    ]


def run(grid: Grid) -> Iterator[list[Cell]]:
    """Measure the grid, one cell for each layout at a time; torch's number of threads is put back at the end."""
    before = torch.get_num_threads()
    torch.manual_seed(0)
    try:
        for threads in grid.threads:
            torch.set_num_threads(threads)
            for out_features, in_features in grid.shapes:
                for sparsity in grid.sparsities:
                    dense = pruned_linear(out_features, in_features, sparsity)
                    sparse = {name: SparseLinear.from_linear(dense, layout=name) for name in grid.layouts}
                    for batch in grid.batches:
                        yield _measure(dense, sparse, sparsity, batch, grid)
    finally:
        torch.set_num_threads(before)


def to_dict(cells: Sequence[Cell]) -> dict[str, Any]:
    """Cells and the environment they were measured in, as plain values."""
    return {
        "environment": environment(),
        "cells": [{**asdict(cell), "speedup": cell.speedup} for cell in cells],
    }
