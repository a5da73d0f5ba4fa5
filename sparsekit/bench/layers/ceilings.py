"""Peak FLOP/s and memory bandwidth of this machine, for the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from sparsekit import runtime

_PEAK_ROUNDS = 5_000_000  # takes milliseconds
_MEMORY_FLOATS = 64 * 2**20  # 256 MB, larger than any cache
_CACHE_FLOATS = 64 * 2**10  # 256 KB, in L2
_MATRIX = 1024


@dataclass(frozen=True)
class Ceilings:
    """Best of several repetitions on `threads` threads."""

    threads: int
    fma_gflops: float  # FMAs of the instruction set in use, on registers only
    gflops: float  # dense float32 matrix product of 1024 x 1024 x 1024 in torch
    memory_gbps: float  # reading 256 MB, GB/s
    cache_gbps: float  # reading 256 KB repeatedly


def _best_seconds(function: Callable[[], Any], repeats: int) -> float:
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def _read_gbps(floats: int, repeats: int) -> float:
    array = torch.ones(floats)
    return 4 * floats / _best_seconds(array.sum, repeats) / 1e9


def _peak_gflops(threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best_seconds(lambda: list(pool.map(runtime.run_peak, [_PEAK_ROUNDS] * threads)), 10)
    return threads * runtime.run_peak(_PEAK_ROUNDS) / seconds / 1e9


def measure() -> Ceilings:
    """Measure ceilings with torch's current number of threads; takes about a second."""
    matrix = torch.randn(_MATRIX, _MATRIX)
    return Ceilings(
        threads=torch.get_num_threads(),
        fma_gflops=_peak_gflops(torch.get_num_threads()),
        gflops=2 * _MATRIX**3 / _best_seconds(lambda: matrix @ matrix, 10) / 1e9,
        memory_gbps=_read_gbps(_MEMORY_FLOATS, 5),
        cache_gbps=_read_gbps(_CACHE_FLOATS, 1000),
    )
