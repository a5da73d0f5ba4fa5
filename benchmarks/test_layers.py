"""Linear layers under pytest-benchmark: dense torch beside every layout, one thread.

    .venv/bin/python -m pytest benchmarks/test_layers.py --benchmark-json=layers.json

For ratios use `sparsekit bench`: it interleaves what it compares.
"""

import pytest
import torch

from sparsekit import SparseLinear
from sparsekit.bench.layers import pruned_linear
from sparsekit.runtime import LAYOUTS


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["dense", *LAYOUTS])
@pytest.mark.parametrize("batch", [1, 16, 128])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("shape", [(384, 384), (1536, 384), (384, 1536)], ids="x".join(["{0[0]}", "{0[1]}"]).format)
def test_layer(benchmark, shape, sparsity, batch, kind):
    torch.manual_seed(0)
    dense = pruned_linear(*shape, sparsity)
    layer = dense if kind == "dense" else SparseLinear.from_linear(dense, layout=kind)
    x = torch.randn(batch, shape[1])
    benchmark.group = f"{shape[0]}x{shape[1]} {sparsity:.0%} batch {batch}"
    with torch.inference_mode():
        result = benchmark(layer, x)
    assert result.shape == (batch, shape[0])
