"""Fixtures: every instruction set of the machine, random numbers."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from sparsekit import SparseLinear, finalize, prune, runtime


@pytest.fixture(params=runtime.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces one instruction set after the other."""
    before = runtime.current_isa()
    runtime.use_isa(request.param)
    yield request.param
    runtime.use_isa(before)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def dense() -> nn.Linear:
    """A layer at 80% sparsity."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 40)
    prune(nn.Sequential(layer), 0.8)
    finalize(layer)
    return layer.eval()


@pytest.fixture
def sparse(dense: nn.Linear) -> SparseLinear:
    """The same, converted."""
    return SparseLinear.from_linear(dense)
