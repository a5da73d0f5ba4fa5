"""The torch operators: schema, shape functions, gradients, compilation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matrices import random_weight

from sparsekit import CSR, KernelUnavailableError, ops
from sparsekit.ops.linear import _linear
from sparsekit.runtime import ACTIVATIONS


@pytest.fixture
def weight(rng) -> np.ndarray:
    return random_weight(rng, (12, 20), 0.6)


@pytest.fixture
def packed(weight) -> torch.Tensor:
    return torch.from_numpy(CSR.from_dense(weight).pack())


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck_of_linear(packed, activation, with_bias):
    torch.manual_seed(0)
    for x in (leaf(3, 20), leaf(2, 3, 20)):
        bias = leaf(12) if with_bias else None
        torch.library.opcheck(torch.ops.sparsekit.linear.default, (x, packed, bias, 12, activation))


def test_opcheck_of_linear_input_gradient(packed):
    torch.library.opcheck(torch.ops.sparsekit.linear_input_gradient.default, (leaf(3, 12), packed, 20))


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "silu"])
def test_gradients_equal_those_of_dense_torch(weight, packed, activation):
    torch.manual_seed(0)
    functions = {
        None: lambda x: x,
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
    }
    x, bias, scale = leaf(4, 5, 20), leaf(12), torch.randn(4, 5, 12)
    (ops.linear(x, packed, bias, 12, activation) * scale).sum().backward()
    x64, bias64 = x.detach().double().requires_grad_(), bias.detach().double().requires_grad_()
    dense = functions[activation](F.linear(x64, torch.from_numpy(weight).double(), bias64))
    (dense * scale).sum().backward()
    torch.testing.assert_close(x.grad, x64.grad.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias.grad, bias64.grad.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Input #.* requires gradient and is not a double precision")
def test_gradcheck(packed):
    """The layer is linear, so a wide central difference is exact but for float32 rounding."""
    torch.manual_seed(0)
    x, bias = leaf(3, 20), leaf(12)
    options = {"eps": 0.5, "atol": 1e-3, "rtol": 1e-3}
    assert torch.autograd.gradcheck(lambda x, b: ops.linear(x, packed, b, 12, None), (x, bias), **options)
    assert torch.autograd.gradgradcheck(lambda x: ops.linear(x, packed, None, 12, None), (x,), **options)


def test_gradients_of_an_input_without_a_batch(packed):
    x, bias = leaf(20), leaf(12)
    ops.linear(x, packed, bias, 12, None).sum().backward()
    assert torch.equal(bias.grad, torch.ones(12))
    assert x.grad.shape == (20,)


def test_vmap_gives_the_same_and_forward_mode_is_refused(packed):
    x = torch.randn(3, 20)
    with torch.no_grad():
        rows = torch.func.vmap(lambda row: ops.linear(row, packed, None, 12, None))(x)
        torch.testing.assert_close(rows, ops.linear(x, packed, None, 12, None))
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(lambda rows: ops.linear(rows, packed, None, 12, None), (x,), (x,))


def test_errors(packed):
    x = torch.zeros(2, 20)
    with pytest.raises(TypeError, match="must be one of float32, bfloat16, float16, got torch.float64"):
        ops.linear(x.double(), packed, None, 12, None)
    with pytest.raises(ValueError, match="expected 20 features in and 12 out, got 19 and 12"):
        ops.linear(torch.zeros(2, 19), packed, None, 12, None)
    with pytest.raises(ValueError, match="got 20 and 13"):
        ops.linear(x, packed, None, 13, None)
    with pytest.raises(ValueError, match=r"bias must have shape \[12\], got \[13\]"):
        ops.linear(x, packed, torch.zeros(13), 12, None)
    with pytest.raises(ValueError, match="at least one dimension"):
        ops.linear(torch.tensor(1.0), packed, None, 12, None)
    with pytest.raises(ValueError, match="activation must be None or one of"):
        ops.linear(x, packed, None, 12, "tanh")
    with pytest.raises(KernelUnavailableError, match="run on the CPU, got input on meta"):
        _linear(x.to("meta"), packed, None, 12, None)
    with pytest.raises(KernelUnavailableError, match="got bias on meta"):
        _linear(x, packed, torch.zeros(12, device="meta"), 12, None)
    with pytest.raises(TypeError, match="must be contiguous uint8, got torch.float32"):
        ops.linear(x, packed.float(), None, 12, None)
    with pytest.raises(TypeError, match="must be contiguous uint8"):
        torch.ops.sparsekit.linear_input_gradient(torch.zeros(2, 12), packed.float(), 20)
    with pytest.raises(ValueError, match="not a packed weight"):
        ops.linear(x, torch.zeros(512, dtype=torch.uint8), None, 12, None)
