"""int8 weights from Python: scales, layers, state dicts, conversion, errors in words."""

import copy

import numpy as np
import pytest
import torch
from tolerances import matmul_bound
from torch import nn

from sparsekit import CSR, JoinedLinear, SparseLinear, conversion_report, convert, runtime
from sparsekit.formats.quantization import SCALE_METHODS, by_absmax, by_mse, by_percentile


def pruned(out_features: int = 96, in_features: int = 200, sparsity: float = 0.8) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(in_features, out_features)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) >= sparsity)
        layer.weight[3] = 0
    return layer


def largest_error(layer: nn.Linear, x: torch.Tensor, scales: np.ndarray) -> torch.Tensor:
    """What half a step of the weight's scale and of the token's scale can add up to, for every output."""
    weight = layer.weight.detach().abs().double()
    kept = (layer.weight.detach() != 0).double()
    step_w = torch.from_numpy(scales).double()[:, None]
    x = x.double()
    step_x = (x.max(-1).values.clamp(min=0) - x.min(-1).values.clamp(max=0))[..., None] / 255
    from_weights = x.abs() @ (kept * step_w / 2).T
    from_inputs = step_x * (weight + kept * step_w / 2).sum(-1)  # half a step, and half of the zero point's
    return 1.001 * (from_weights + from_inputs) + 1e-6


@pytest.mark.parametrize("isa", runtime.available_isas())
@pytest.mark.parametrize("shape", [(200,), (1, 200), (2, 33, 200)])
def test_a_layer_is_as_near_as_its_scales_allow(isa, shape):
    layer = pruned()
    sparse = SparseLinear.from_linear(layer, dtype="int8")
    assert (sparse.dtype, sparse.nnz) == ("int8", int(layer.weight.count_nonzero()))
    assert "dtype='int8'" in repr(sparse)
    x = torch.randn(shape)
    x[..., 5] *= 50  # a channel of outliers
    before = runtime.current_isa()
    try:
        runtime.use_isa(isa)
        error = (sparse(x).double() - layer(x).double()).abs()
    finally:
        runtime.use_isa(before)
    assert bool((error <= largest_error(layer, x, by_absmax(CSR.from_torch(layer.weight)))).all())


def test_scales_do_what_they_say():
    weight = CSR.from_torch(pruned(32, 400, 0.5).weight)
    rows = [weight.values[a:b] for a, b in zip(weight.crow_indices[:-1], weight.crow_indices[1:], strict=True)]
    for row, scale in zip(rows, by_absmax(weight), strict=True):
        assert scale == pytest.approx(np.abs(row).max() / 127 if row.size else 1.0, rel=1e-6)
    for row, scale in zip(rows, by_percentile(weight), strict=True):
        assert scale == pytest.approx(np.percentile(np.abs(row), 99.5) / 127 if row.size else 1.0, rel=1e-6)

    def error(scales):
        codes = [np.clip(np.rint(row / scale), -127, 127) * scale for row, scale in zip(rows, scales, strict=True)]
        return [float(((found - row) ** 2).sum()) for found, row in zip(codes, rows, strict=True)]

    best = error(by_mse(weight))
    for name in SCALE_METHODS:
        assert sum(best) <= sum(error(SCALE_METHODS[name](weight))) * 1.0001


def test_a_packed_weight_says_what_it_holds_and_gives_it_back():
    weight = CSR.from_torch(pruned().weight)
    packed = weight.pack("int8")
    info = runtime.packed_info(packed)
    assert (info.dtype, info.nnz) == ("int8", weight.nnz)
    back = CSR.unpack(packed)
    assert back.dtype == "int8"
    assert np.array_equal(back.scales, by_absmax(weight))
    assert np.array_equal(back.col_indices, weight.col_indices)
    step = np.repeat(back.scales, np.diff(weight.crow_indices))
    assert np.array_equal(back.float_values(), back.values * step)
    assert np.all(np.abs(back.float_values() - weight.values) <= 0.5001 * step)
    assert np.array_equal(back.pack("int8"), packed)
    assert packed.nbytes < 0.5 * weight.pack(layout="sell").nbytes
    assert runtime.packed_info(weight.pack()).dtype == "float32"
    assert CSR.unpack(weight.pack()).scales is None


def test_a_state_dict_holds_bytes_and_loads_bit_for_bit():
    sparse = SparseLinear.from_linear(pruned(), dtype="int8", scale_method="mse")
    state = sparse.state_dict()
    assert state["values"].dtype == torch.int8
    fresh = SparseLinear(200, 96)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.packed, sparse.packed)
    assert copy.deepcopy(sparse).dtype == "int8"
    with pytest.raises(RuntimeError, match=r"scales must have shape \[out_features\] = \[96\]"):
        fresh.load_state_dict({**state, "scales": state["scales"][:5]})
    with pytest.raises(RuntimeError, match="int8 and int4 values, and no others, have scales"):
        fresh.load_state_dict({**state, "values": state["values"].float()})


def test_a_layer_that_int8_cannot_hold_stays_dense_and_says_why():
    model = nn.Sequential(pruned(), nn.Linear(96, 4))
    model[0].weight.data[0, 0] = float("inf")
    report = conversion_report(convert(model, dtype="int8", min_sparsity=0.0))
    assert "int8 values must be finite" in report.layers[0].reason
    assert [type(layer) for layer in model] == [nn.Linear, SparseLinear]


def test_joined_layers_stay_int8():
    parts = [SparseLinear.from_linear(pruned(), dtype="int8"), SparseLinear.from_linear(pruned(40), dtype="int8")]
    joined = JoinedLinear.from_linears(parts)
    assert joined.linear.dtype == "int8"
    x = torch.randn(5, 200)
    for mine, part in zip(joined(x), parts, strict=True):
        assert torch.equal(mine, part(x))
    with pytest.raises(ValueError, match="must have the same dtype, got float32, int8"):
        JoinedLinear.from_linears([parts[0], pruned()])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_cannot_be_quantized_are_refused_in_words(bad):
    weight = CSR.from_torch(pruned().weight)
    x = np.zeros((3, 200), np.float32)
    x[1, 7] = bad
    with pytest.raises(ValueError, match="cannot be quantized to int8"):
        runtime.linear(x, weight.pack("int8", layout="sell"))
    result = runtime.linear(x, weight.pack("int8", layout="csr"))  # inputs stay floats
    assert np.all(np.isfinite(result[[0, 2]]))
    assert np.array_equal(np.isfinite(result[1]), weight.to_dense()[:, 7] == 0)


def test_a_text_gets_the_same_answer_alone_and_in_a_batch(isa):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((70, 200), dtype=np.float32)
    for sparsity in (0.5, 0.9):
        weight = CSR.from_torch(pruned(sparsity=sparsity).weight)
        for dtype in ("float32", "bfloat16", "float16", "int8"):
            for layout in ("sell", "csr", "bitmask", "dense", None):
                packed = weight.pack(dtype, layout=layout)
                alone = np.concatenate([runtime.linear(row[None], packed) for row in x])
                bound = matmul_bound(CSR.unpack(packed).to_dense(), x)
                for count in (2, 4, 9, 30, 70):
                    assert np.all(np.abs(runtime.linear(x[:count], packed) - alone[:count]) <= bound[:count])


def test_gradients_are_refused_in_words():
    sparse = SparseLinear.from_linear(pruned(), dtype="int8")
    x = torch.randn(3, 200, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient for its input"):
        sparse(x).sum().backward()


def test_unknown_arguments_are_refused():
    weight = CSR.from_torch(pruned().weight)
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, int8, int4, got 'int2'"):
        weight.pack("int2")
    with pytest.raises(ValueError, match="scale_method must be one of absmax, percentile, mse"):
        weight.pack("int8", scale_method="median")
    with pytest.raises(ValueError, match=r"scales must have shape \[out_features\] = \[96\], got \[2\]"):
        weight.pack("int8", scales=np.ones(2, np.float32))
    with pytest.raises(ValueError, match="scales must be positive and finite"):
        weight.pack("int8", scales=np.zeros(96, np.float32))
    with pytest.raises(ValueError, match="dtype must be one of"):
        convert(nn.Sequential(pruned()), dtype="int2")


def test_torch_dtypes_name_the_type_of_weights():
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int8):
        assert f"torch.{SparseLinear.from_linear(pruned(), dtype=dtype).dtype}" == str(dtype)
    with pytest.raises(ValueError, match="float32, bfloat16, float16, int8, int4, got torch.float64"):
        SparseLinear.from_linear(pruned(), dtype=torch.float64)
