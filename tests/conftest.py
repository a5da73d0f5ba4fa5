"""Fixtures: every instruction set of the machine, and awkward matrices."""

from collections.abc import Iterator

import numpy as np
import pytest

from sparsekit import runtime


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
