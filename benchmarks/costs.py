"""What a sparse layer costs beside its kernels: packing, a call, neighbors, and what joining layers saves.

.venv/bin/python benchmarks/costs.py benchmarks/results/costs.json
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sparsekit import JoinedLinear, SparseLinear
from sparsekit.bench.affinity import limited_to
from sparsekit.io.atomic_file import write_json
from sparsekit.runtime.environment import environment
from sparsekit.timing.comparing import compare

SECONDS = 1.0

#: Packs one layer in a process of its own; prints the peak of its memory above what was there before, in bytes.
PEAK = """
import pathlib, sys, torch
from sparsekit import JoinedLinear, SparseLinear
def status(name):
    line = next(x for x in pathlib.Path("/proc/self/status").read_text().splitlines() if x.startswith(name + ":"))
    return 1024 * int(line.split()[1])
out_features, in_features, sparsity = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
SparseLinear.from_linear(torch.nn.Linear(8, 8))
linear = torch.nn.Linear(in_features, out_features, bias=False)
with torch.no_grad():
    for row in linear.weight:
        row.mul_(torch.rand(in_features) >= sparsity)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
sparse = SparseLinear.from_linear(linear)
print(status("VmHWM") - before, sparse.packed.numel())
"""


def pruned(out_features: int, in_features: int, sparsity: float, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    linear = nn.Linear(in_features, out_features)
    with torch.no_grad():
        linear.weight.mul_(torch.rand_like(linear.weight) >= sparsity)
    return linear


def packing(out_features: int, in_features: int, sparsity: float) -> dict[str, Any]:
    """Dense weight to packed weight: megabytes of the dense one a second, one thread, and the peak of memory."""
    linear = pruned(out_features, in_features, sparsity)
    with limited_to(1):
        timing = compare({"pack": partial(SparseLinear.from_linear, linear)}, seconds=SECONDS)["pack"]
    sizes = [str(out_features), str(in_features), str(sparsity)]
    done = subprocess.run([sys.executable, "-c", PEAK, *sizes], check=True, capture_output=True, text=True)
    peak, packed = map(int, done.stdout.split())
    size = linear.weight.nbytes
    return {
        "shape": [out_features, in_features],
        "sparsity": sparsity,
        "mb_per_second": size / timing.median / 1e6,
        "peak_bytes_per_dense_byte": peak / size,
        "packed_bytes_per_dense_byte": packed / size,
    }


def call_overhead() -> dict[str, float]:
    """Microseconds of a call of 16 x 16 with one token, where hardly anything is computed."""
    dense = pruned(16, 16, 0.5)
    x = torch.randn(1, 16)
    calls = {"dense": partial(dense, x), "sparse": partial(SparseLinear.from_linear(dense), x)}
    with limited_to(1):
        timings = compare(calls, seconds=SECONDS)
    return {name: 1e6 * timing.median for name, timing in timings.items()}


def alternation(tokens: int, threads: int) -> dict[str, float]:
    """Seconds of a sparse and a dense layer alone, and in turn with operators of torch."""
    dense = pruned(768, 768, 0.8)
    sparse = SparseLinear.from_linear(dense)
    norm = nn.LayerNorm(768)
    x = torch.randn(1, tokens, 768)
    heads = x.view(1, tokens, 12, 64).transpose(1, 2)

    def others() -> torch.Tensor:
        attended = F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).reshape(x.shape)
        return norm(x) + attended.softmax(-1)

    calls = {
        "others": others,
        "sparse": partial(sparse, x),
        "dense": partial(dense, x),
        "sparse_and_others": lambda: (others(), sparse(x)),
        "dense_and_others": lambda: (others(), dense(x)),
    }
    with limited_to(threads):
        timings = compare(calls, seconds=5 * SECONDS)
    found = {name: timing.median for name, timing in timings.items()}
    return {"tokens": tokens, "threads": threads, **found}


def joining(width: int, tokens: int, threads: int) -> dict[str, float]:
    """Seconds of three layers of one input, apart and joined; 90% sparse."""
    layers = [SparseLinear.from_linear(pruned(width, width, 0.9, seed)) for seed in range(3)]
    joined = JoinedLinear.from_linears(layers)
    x = torch.randn(tokens, width)
    calls = {"apart": lambda: [layer(x) for layer in layers], "joined": partial(joined, x)}
    with limited_to(threads):
        timings = compare(calls, seconds=SECONDS)
    found = {name: timing.median for name, timing in timings.items()}
    return {"width": width, "tokens": tokens, "threads": threads, **found}


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    shapes = ((768, 3072), (4096, 4096), (11008, 4096))
    result = {
        "environment": environment(),
        "packing": [packing(*shape, sparsity) for shape in shapes for sparsity in (0.5, 0.8, 0.9)],
        "call_us": call_overhead(),
        "alternation": [alternation(tokens, threads) for threads in (1, 2) for tokens in (16, 128, 512)],
        "joining": [joining(w, n, threads) for threads in (1, 2) for w in (384, 768) for n in (1, 16, 128, 2048)],
    }
    write_json(Path(arguments[0]), result)
    print(f"wrote {arguments[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
