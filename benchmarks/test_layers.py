"""Linear layers under pytest-benchmark: torch's beside SparseLinear, one thread.

    .venv/bin/python -m pytest benchmarks/test_layers.py --benchmark-json=layers.json

For ratios use `sparsekit bench layers`: it interleaves what it compares.
"""

import pytest
import torch
from torch import nn

from sparsekit import CSR, SparseLinear
from sparsekit.bench.layers.random_weights import random_weight


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("batch", [1, 16, 128])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("shape", [(384, 384), (1536, 384), (384, 1536)], ids="x".join(["{0[0]}", "{0[1]}"]).format)
def test_layer(benchmark, shape, sparsity, batch, kind):
    bias = torch.zeros(shape[0])
    if kind == "dense":
        layer = nn.Linear(shape[1], shape[0])
    else:
        layer = SparseLinear.from_csr(CSR.from_dense(random_weight(shape, sparsity)), bias)
    x = torch.randn(batch, shape[1])
    benchmark.group = f"{shape[0]}x{shape[1]} {sparsity:.0%} batch {batch}"
    with torch.inference_mode():
        result = benchmark(layer, x)
    assert result.shape == (batch, shape[0])
