"""State dicts that a SparseLinear loads, and those that it refuses with a clear error."""

import re

import pytest
import torch

from sparsekit import SparseLinear


def freed(tensor: torch.Tensor) -> torch.Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.fixture
def int8(dense) -> SparseLinear:
    return SparseLinear.from_linear(dense, dtype="int8")


@pytest.mark.parametrize(
    ("key", "change", "why"),
    [
        ("values", lambda t: None, "values must be a dense tensor, got NoneType"),
        ("values", lambda t: t.tolist(), "values must be a dense tensor, got list"),
        ("crow_indices", lambda t: t.to("meta"), "crow_indices is on meta and has no values"),
        ("col_indices", lambda t: t.float(), "col_indices must be a 1-dimensional array of integers"),
        ("col_indices", lambda t: freed(t.clone()), "col_indices has 384 numbers and no memory"),
        ("values", lambda t: t.double() * 1e300, "values must fit in float32, got"),
        ("values", lambda t: t.to_sparse(), "values must be a dense tensor, got layout torch.sparse_coo"),
        ("values", lambda t: t.to(torch.complex64), "values must be a 1-dimensional array of floats"),
        ("values", lambda t: t[:, None], "values must be a 1-dimensional array of floats, got 2 dimensions"),
    ],
)
def test_state_dicts_that_hold_no_weight_are_refused_by_torch_in_words(sparse, key, change, why):
    state = sparse.state_dict()
    before = sparse.packed.clone()
    with pytest.raises(RuntimeError, match=re.escape(f"weight of the layer: {why}")):
        sparse.load_state_dict({**state, key: change(state[key])})
    assert torch.equal(sparse.packed, before)


@pytest.mark.parametrize(
    ("key", "change", "why"),
    [
        ("values", lambda t: torch.full_like(t, -128), "int8 values must be from -127 to 127, got -128"),
        ("values", lambda t: t.float(), "int8 and int4 values, and no others, have scales; got some with float32"),
        ("scales", lambda t: t.double() * 1e300, "scales must fit in float32, got"),
        ("scales", lambda t: torch.full_like(t, 1e38), "scales must be positive and finite, as 127 times them"),
        ("scales", lambda t: None, "scales must be a dense tensor, got NoneType"),
    ],
)
def test_int8_state_dicts_are_refused_in_words(int8, key, change, why):
    state = int8.state_dict()
    with pytest.raises(RuntimeError, match=re.escape(f"weight of the layer: {why}")):
        int8.load_state_dict({**state, key: change(state[key])})


def test_state_dicts_of_other_types_that_hold_the_weight_are_loaded(sparse, dense):
    x = torch.randn(3, 48)
    state = sparse.state_dict()
    negative = {**state, "values": torch._neg_view(-state["values"]), "col_indices": state["col_indices"].long()}
    for given in ({**state, "values": state["values"].double()}, negative):
        layer = SparseLinear(48, 40)
        layer.load_state_dict(given)
        torch.testing.assert_close(layer(x), dense(x))
