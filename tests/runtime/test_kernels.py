"""Every kernel, on every instruction set, against float64."""

import re

import numpy as np
import pytest
import torch
from matrices import SHAPES, blocked_weight, random_weight
from tolerances import activation_bound, matmul_bound

from sparsekit import CSR, runtime

BATCHES = [1, 2, 3, 4, 5, 8, 9, 17, 24, 25, 33, 49, 64, 100]

ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}


def exact(weight, x, bias=None):
    result = x.astype(np.float64) @ weight.astype(np.float64).T
    return result if bias is None else result + bias


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 1.0])
def test_linear_against_float64(isa, rng, shape, sparsity):
    weight = random_weight(rng, shape, sparsity)
    packed = CSR.from_dense(weight).pack()
    bias = rng.standard_normal(shape[0], dtype=np.float32)
    for batch in BATCHES:
        x = rng.standard_normal((batch, shape[1]), dtype=np.float32)
        for given in (None, bias):
            error = np.abs(runtime.linear(x, packed, given) - exact(weight, x, given))
            assert np.all(error <= matmul_bound(weight, x, given)), (batch, given is None)


@pytest.mark.parametrize("layout", ["sell", "csr", "bitmask", "dense"])
@pytest.mark.parametrize("block", ["1x1", "4x1"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_float_type_block_and_layout_against_float64(isa, rng, dtype, block, layout):
    for shape in [(5, 7), (64, 128), (130, 300)]:
        weight = blocked_weight(rng, shape, 0.7)
        packed = CSR.from_dense(weight).pack(dtype, block=block, layout=layout)
        info = runtime.packed_info(packed)
        expected = "csr" if (block, layout) == ("4x1", "bitmask") else layout
        assert (info.dtype, info.layout) == (dtype, expected)
        assert info.block == ("1x1" if layout == "dense" else block)
        held = CSR.unpack(packed).to_dense()
        assert np.all(
            np.abs(held - weight) <= {"float32": 0, "bfloat16": 2**-8, "float16": 2**-11}[dtype] * np.abs(weight)
        )
        bias = rng.standard_normal(shape[0], dtype=np.float32)
        for batch in BATCHES:
            x = rng.standard_normal((batch, shape[1]), dtype=np.float32)
            wanted = np.maximum(exact(held, x, bias), 0)
            error = np.abs(runtime.linear(x, packed, bias, activation="relu") - wanted)
            assert np.all(error <= matmul_bound(held, x, bias)), batch


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_activation_functions_against_torch_in_float64(isa, rng, name):
    weight = random_weight(rng, (40, 50), 0.8)
    packed = CSR.from_dense(weight).pack()
    bias = rng.standard_normal(40, dtype=np.float32)
    for batch in (1, 7, 30, 70):
        x = 3 * rng.standard_normal((batch, 50), dtype=np.float32)
        pre = exact(weight, x, bias)
        wanted = ACTIVATIONS[name](torch.from_numpy(pre)).numpy()
        bound = activation_bound(pre, matmul_bound(weight, x, bias))
        assert np.all(np.abs(runtime.linear(x, packed, bias, activation=name) - wanted) <= bound)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_functions_over_the_whole_range(isa, name):
    """A weight of one makes the kernel show its activation function alone."""
    ends = [0.0, -0.0, 1e-30, -1e-30, 87.0, -87.0, 104.0, -104.0, 1e4, -1e4, 3e38, -3e38]
    x = np.concatenate([np.linspace(-12, 12, 2001), ends]).astype(np.float32)
    one = CSR.from_dense(np.ones((1, 1), np.float32)).pack()
    result = runtime.linear(x[:, None], one, activation=name)[:, 0]
    wanted = ACTIVATIONS[name](torch.from_numpy(x.astype(np.float64))).numpy()
    assert np.all(np.abs(result - wanted) <= activation_bound(x, np.zeros(x.shape)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_functions_of_inf_and_nan(isa, name):
    """Minus infinity becomes 0 in ReLU and, as in torch's formulas, 0 * inf in the others."""
    one = CSR.from_dense(np.ones((1, 1), np.float32)).pack()
    x = np.array([[np.inf], [np.nan], [-np.inf]], np.float32)
    result = runtime.linear(x, one, activation=name)[:, 0]
    np.testing.assert_array_equal(result, [np.inf, np.nan, 0.0 if name == "relu" else np.nan])


@pytest.mark.parametrize("layout", ["sell", "csr", "bitmask"])
@pytest.mark.parametrize("batch", [1, 6, 40, 80])
def test_gradient_for_the_input_against_float64(isa, rng, batch, layout):
    torch.manual_seed(0)
    weight = random_weight(rng, (70, 290), 0.8)
    packed = CSR.from_dense(weight).pack(layout=layout)
    gradient = rng.standard_normal((batch, 70), dtype=np.float32)
    result = np.full((batch, 290), np.nan, np.float32)
    runtime.linear_input_gradient_at(
        packed.ctypes.data, packed.size, gradient.ctypes.data, 70, 70, batch, result.ctypes.data, 290
    )
    error = np.abs(result - gradient.astype(np.float64) @ weight)
    assert np.all(error <= matmul_bound(weight.T, gradient))


@pytest.mark.parametrize("batch", [1, 5, 20, 70])
@pytest.mark.parametrize("make", [random_weight, blocked_weight])
@pytest.mark.parametrize("layout", ["sell", "csr", "bitmask"])
def test_inf_and_nan_reach_only_rows_with_a_weight_there(isa, rng, make, batch, layout):
    weight = make(rng, (36, 64), 0.8)
    x = rng.standard_normal((batch, 64), dtype=np.float32)
    x[:, 0], x[:, 33] = np.nan, np.inf
    result = runtime.linear(x, CSR.from_dense(weight).pack(layout=layout))
    untouched = (weight[:, 0] == 0) & (weight[:, 33] == 0)
    assert np.all(np.isfinite(result[:, untouched]))
    assert np.all(np.isnan(result[:, weight[:, 0] != 0]))
    only_inf = (weight[:, 0] == 0) & (weight[:, 33] != 0)
    assert np.all(np.isinf(result[:, only_inf]))


def test_layouts_by_name(isa):
    weight = CSR.from_dense(np.eye(4, dtype=np.float32))
    chosen = {dtype: runtime.packed_info(weight.pack(dtype)).layout for dtype in ("float32", "bfloat16", "int8")}
    reads_rows = "csr" if isa in ("avx2", "avxvnni") else "sell"
    assert chosen == {"float32": reads_rows, "bfloat16": reads_rows, "int8": "csr" if isa == "avx2" else "sell"}
    for dtype in ("float32", "int8"):
        for layout in ("sell", "csr", "bitmask", "dense"):
            assert runtime.packed_info(weight.pack(dtype, layout=layout)).layout == layout
    with pytest.raises(ValueError, match="layout must be one of 'sell', 'csr', 'bitmask', 'dense', got 'ell'"):
        weight.pack(layout="ell")


@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (64, 64), (100, 130), (33, 1000)])
def test_a_dense_layout_computes_in_int8_what_a_sparse_one_does(isa, rng, shape):
    weight = CSR.from_dense(random_weight(rng, shape, 0.3))
    for batch in (1, 2, 3, 5, 11, 12, 13, 48, 49, 100):
        x = rng.standard_normal((batch, shape[1]), dtype=np.float32)
        dense, sparse = (runtime.linear(x, weight.pack("int8", layout=layout)) for layout in ("dense", "sell"))
        np.testing.assert_array_equal(dense, sparse)


def test_a_dense_layout_keeps_every_weight_that_is_not_zero(rng):
    weight = random_weight(rng, (70, 33), 0.4)
    for dtype in ("float32", "bfloat16", "float16", "int8"):
        packed = CSR.from_dense(weight).pack(dtype, layout="dense")
        kept = CSR.unpack(packed)
        np.testing.assert_array_equal(kept.to_dense(), CSR.unpack(CSR.from_dense(weight).pack(dtype)).to_dense())
        assert kept.nnz == np.count_nonzero(kept.to_dense())
        assert runtime.packed_info(packed).nnz == np.count_nonzero(weight)


def test_a_dense_layout_has_no_gradient(rng):
    packed = CSR.from_dense(random_weight(rng, (16, 16), 0.0)).pack(layout="dense")
    x, y = np.zeros((1, 16), np.float32), np.zeros((1, 16), np.float32)
    with pytest.raises(ValueError, match="packed with its zeros has no gradient for its input; pack it as 'csr'"):
        runtime.linear_input_gradient_at(packed.ctypes.data, packed.size, x.ctypes.data, 16, 16, 1, y.ctypes.data, 16)


@pytest.mark.parametrize("zeros", [0, 11, 12, 15, 16])
def test_layouts_worth_measuring(isa, zeros):
    weight = np.ones(16, np.float32)
    weight[:zeros] = 0.0
    csr = CSR.from_dense(weight.reshape(4, 4))
    floats = ("csr",) if isa in ("avx2", "avxvnni") else ("sell",)
    bytes_ = (("csr", "sell") if zeros >= 12 else ("sell", "csr")) if isa == "avx2" else ("sell",)
    for dtype, wanted in {"float32": floats, "bfloat16": floats, "float16": floats, "int8": bytes_}.items():
        assert csr.layouts(dtype) == wanted
        assert runtime.packed_info(csr.pack(dtype)).layout == wanted[0]
    assert csr.layouts() == floats
    with pytest.raises(ValueError, match="dtype must be one of"):
        csr.layouts("int3")


def test_more_input_features_than_sixteen_bits(isa, rng):
    weight = np.zeros((3, 70_000), np.float32)
    weight[1, [0, 65_535, 65_536, 69_999]] = [1.0, 2.0, -3.0, 4.0]
    x = rng.standard_normal((2, 70_000), dtype=np.float32)
    result = runtime.linear(x, CSR.from_dense(weight).pack())
    assert np.all(np.abs(result - exact(weight, x)) <= matmul_bound(weight, x))


def test_unaligned_arrays(isa, rng):
    weight = random_weight(rng, (19, 45), 0.6)
    packed = CSR.from_dense(weight).pack()
    shifted = np.empty(packed.size + 8, np.uint8)[8:]
    shifted[:] = packed
    x = np.empty(1 + 30 * 45, np.float32)[1:].reshape(30, 45)
    x[:] = rng.standard_normal((30, 45))
    assert np.all(np.abs(runtime.linear(x, shifted) - exact(weight, x)) <= matmul_bound(weight, x))


def test_results_do_not_depend_on_the_number_of_threads(isa, rng):
    weight = random_weight(rng, (900, 800), 0.7)  # enough work for more than one thread, even with one token
    packed = CSR.from_dense(weight).pack()
    before = torch.get_num_threads()
    try:
        for batch in (1, 64, 200):
            x = rng.standard_normal((batch, 800), dtype=np.float32)
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(runtime.linear(x, packed))
            np.testing.assert_array_equal(results[0], results[1])
            np.testing.assert_array_equal(results[0], results[2])
    finally:
        torch.set_num_threads(before)


def test_empty_batches_and_empty_weights(isa):
    packed = CSR.from_dense(np.ones((3, 4), np.float32)).pack()
    assert runtime.linear(np.zeros((0, 4), np.float32), packed).shape == (0, 3)
    no_rows = CSR.from_dense(np.zeros((0, 4), np.float32)).pack()
    assert runtime.linear(np.zeros((2, 4), np.float32), no_rows).shape == (2, 0)
    no_inputs = CSR.from_dense(np.zeros((3, 0), np.float32)).pack()
    bias = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_array_equal(runtime.linear(np.zeros((2, 0), np.float32), no_inputs, bias), [bias, bias])


def test_kernel_names_follow_the_grammar(isa):
    for name, tile, from_batch in runtime.kernels():
        layouts = r"(dense|sell|csr|bitmask)_(4x1_)?(f32|bf16|fp16|s8|s4)"
        assert re.fullmatch(rf"(gemm|spmm|spmv|spmv_plain)_{layouts}_\d+", name)
        assert 1 <= from_batch <= tile
