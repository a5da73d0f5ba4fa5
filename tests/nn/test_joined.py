"""Joined layers compute the same as separate layers."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsekit import JoinedLinear, SparseLinear


def layers(*biases: bool) -> list[nn.Linear]:
    torch.manual_seed(0)
    made = [nn.Linear(130, 20 + 30 * i, bias=bias) for i, bias in enumerate(biases)]
    for layer in made:
        with torch.no_grad():
            layer.weight.mul_(torch.rand_like(layer.weight) >= 0.7)
    return made


@pytest.mark.parametrize("biases", [(True, True, True), (False, False), (True, False, True)])
@pytest.mark.parametrize("shape", [(130,), (1, 130), (3, 17, 130)])
def test_outputs_are_those_of_the_layers(biases, shape):
    apart = layers(*biases)
    joined = JoinedLinear.from_linears(apart)
    assert (joined.linear.bias is None) == (not any(biases))
    x = torch.randn(shape)
    for mine, layer in zip(joined(x), apart, strict=True):
        torch.testing.assert_close(mine, layer(x))


def test_sparse_layers_join_too_and_gradients_flow():
    dense = layers(True, True)
    joined = JoinedLinear.from_linears([SparseLinear.from_linear(dense[0]), dense[1]])
    x = torch.randn(4, 130, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    sum(out.square().sum() for out in joined(x)).backward()
    sum(layer(y).square().sum() for layer in dense).backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_stored_values_stay_as_they_are(dtype):
    apart = [SparseLinear.from_linear(layer, dtype=dtype) for layer in layers(True, True)]
    joined = JoinedLinear.from_linears(apart).linear.to_csr()
    parts = [layer.to_csr() for layer in apart]
    assert joined.dtype == dtype
    assert np.array_equal(joined.values, np.concatenate([part.values for part in parts]))
    if dtype == "int8":
        assert np.array_equal(joined.scales, np.concatenate([part.scales for part in parts]))


def test_a_layout_that_all_were_given_stays():
    one, two = layers(True, True)
    for layout in ("sell", "csr"):
        apart = [SparseLinear.from_linear(layer, layout=layout) for layer in (one, two)]
        joined = JoinedLinear.from_linears(apart)
        assert (joined.linear.layout, joined.linear.chosen_layout) == (layout, layout)
        joined.load_state_dict(JoinedLinear.from_linears([one, two]).state_dict())
        assert joined.linear.layout == layout
    apart = [SparseLinear.from_linear(one, layout="sell"), SparseLinear.from_linear(two, layout="csr")]
    assert JoinedLinear.from_linears(apart).linear.chosen_layout is None


def test_a_state_dict_loads_into_a_fresh_layer():
    joined = JoinedLinear.from_linears(layers(True, False))
    fresh = JoinedLinear(130, (20, 50))
    fresh.load_state_dict(joined.state_dict())
    x = torch.randn(2, 130)
    for mine, other in zip(fresh(x), joined(x), strict=True):
        assert torch.equal(mine, other)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"same in_features, got \[3, 4\]"):
        JoinedLinear.from_linears([nn.Linear(3, 2), nn.Linear(4, 2)])
    with pytest.raises(ValueError, match="got no layer"):
        JoinedLinear.from_linears([])
    with pytest.raises(ValueError, match="cannot have activation functions"):
        JoinedLinear.from_linears([SparseLinear(3, 2, activation="relu")])
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Linear"):
        JoinedLinear.from_linears([Odd()])


class Odd(nn.Module):
    in_features = 3
