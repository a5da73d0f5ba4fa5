"""SparseLinear as a drop-in for nn.Linear."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from sparsekit import (
    CSR,
    SparseLinear,
    convert,
    densify,
    finalize,
    load,
    load_state_dict,
    prune,
    save,
)
from sparsekit.runtime import packed_info


def test_attributes_and_repr(dense, sparse):
    assert (sparse.in_features, sparse.out_features) == (48, 40)
    assert sparse.nnz == int(dense.weight.count_nonzero())
    assert sparse.sparsity == pytest.approx(0.8)
    assert torch.equal(sparse.bias, dense.bias)
    assert not sparse.training
    expected = "in_features=48, out_features=40, bias=True, nnz=384, sparsity=0.800"
    assert expected in repr(sparse)
    assert "activation='gelu'" in repr(SparseLinear.from_linear(dense, activation="gelu"))


@pytest.mark.parametrize("shape", [(48,), (1, 48), (7, 48), (2, 3, 48), (2, 0, 48), (0, 48), (33, 2, 48)])
def test_any_leading_shape(dense, sparse, shape):
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(sparse(x), dense(x))


def test_inputs_that_are_not_contiguous(dense, sparse):
    for x in (torch.randn(48, 9).t(), torch.randn(9, 96)[:, ::2], torch.randn(3, 9, 48).transpose(0, 1)):
        torch.testing.assert_close(sparse(x), dense(x))
    wide = torch.randn(9, 60)[:, 6:54]
    torch.testing.assert_close(sparse(wide), dense(wide))
    expanded = torch.randn(1, 48).expand(5, 48)
    torch.testing.assert_close(sparse(expanded), dense(expanded))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dense, sparse, dtype):
    x = torch.randn(5, 48).to(dtype)
    result = sparse(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result, dense(x.float()).to(dtype))
    half = copy.deepcopy(sparse).to(dtype)
    assert half(x).dtype == dtype
    assert half.nnz == sparse.nnz


def test_no_bias():
    torch.manual_seed(0)
    dense = nn.Linear(20, 10, bias=False)
    sparse = SparseLinear.from_linear(dense)
    assert sparse.bias is None
    assert list(sparse.state_dict()) == ["crow_indices", "col_indices", "values"]
    x = torch.randn(3, 20)
    torch.testing.assert_close(sparse(x), dense(x))
    assert sparse.to_linear().bias is None


def test_fused_activation(dense):
    x = torch.randn(6, 48)
    sparse = SparseLinear.from_linear(dense, activation="gelu")
    torch.testing.assert_close(sparse(x), torch.nn.functional.gelu(dense(x)))
    with pytest.raises(ValueError, match="this layer fuses 'gelu'"):
        sparse.to_linear()


def test_round_trip_to_dense_and_csr(dense, sparse):
    back = sparse.to_linear()
    assert torch.equal(back.weight, dense.weight)
    assert torch.equal(back.bias, dense.bias)
    assert torch.equal(torch.from_numpy(sparse.to_csr().to_dense()), dense.weight)


def test_one_copy_of_the_weight_in_memory(sparse):
    tensors = {name: tensor.numel() * tensor.element_size() for name, tensor in sparse.named_buffers()}
    assert list(tensors) == ["packed"]
    assert [name for name, _ in sparse.named_parameters()] == ["bias"]
    extra = [value for value in vars(sparse).values() if isinstance(value, torch.Tensor)]
    assert not extra


def test_a_packed_weight_takes_about_seven_bytes_a_nonzero():
    torch.manual_seed(0)
    layer = nn.Linear(1024, 1024)
    prune(nn.Sequential(layer), 0.8)
    sparse = SparseLinear.from_linear(finalize(layer))
    assert sparse.packed.numel() <= 7.1 * sparse.nnz


def test_deepcopy(dense, sparse):
    twin = copy.deepcopy(sparse)
    assert twin.packed.data_ptr() != sparse.packed.data_ptr()
    x = torch.randn(3, 48)
    assert torch.equal(twin(x), sparse(x))


def test_state_dict_through_a_file_loaded_with_weights_only(sparse):
    file = io.BytesIO()
    torch.save(sparse.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert set(state) == {"crow_indices", "col_indices", "values", "bias"}
    new = SparseLinear(48, 40)
    new.load_state_dict(state)
    x = torch.randn(3, 48)
    assert torch.equal(new(x), sparse(x))
    assert packed_info(new.packed.numpy()).nnz == sparse.nnz


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("layout", ["sell", "csr"])
def test_a_layout_that_was_given_stays(isa, dense, layout, dtype):
    layer = SparseLinear.from_linear(dense, dtype=dtype, layout=layout)
    assert layer.layout == layout
    assert f"layout={layout!r}" in repr(layer)
    other = SparseLinear.from_linear(nn.Linear(48, 40), dtype=dtype)
    for given in (other, SparseLinear.from_linear(dense, dtype=dtype, layout="csr")):
        for mine in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
            mine.load_state_dict(given.state_dict())
            assert mine.layout == layout
            assert torch.equal(mine.to_linear().weight, given.to_linear().weight)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_without_one_every_weight_is_packed_in_the_preferred_layout(isa, dense, dtype):
    layer = SparseLinear.from_linear(dense, dtype=dtype)
    assert "layout" not in repr(layer)
    for linear in (nn.Linear(48, 40), dense):
        layer.load_state_dict(SparseLinear.from_linear(linear, dtype=dtype, layout="csr").state_dict())
        assert layer.layout == layer.to_csr().layouts(dtype)[0]


def test_state_dict_inside_a_model_and_its_errors(sparse):
    model = nn.Sequential(nn.ReLU(), sparse)
    state = model.state_dict()
    assert "1.values" in state
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key.*"1.crow_indices"'):
        model.load_state_dict({"1.bias": state["1.bias"], "1.col_indices": state["1.col_indices"]})
    broken = {**state, "1.col_indices": state["1.col_indices"] + 48}
    with pytest.raises(RuntimeError, match=r"weight of 1: col_indices must be in \[0, in_features\)"):
        model.load_state_dict(broken)
    with pytest.raises(RuntimeError, match='Unexpected key.*"1.weight"'):
        model.load_state_dict({**state, "1.weight": torch.zeros(2)})
    torch.testing.assert_close(model(torch.ones(2, 48)), sparse(torch.ones(2, 48)))


def test_a_layer_on_meta_can_be_printed_and_loaded(sparse):
    state = sparse.state_dict()
    empty = SparseLinear(48, 40).to("meta")
    assert "in_features=48" in repr(empty)
    empty.load_state_dict(state, assign=True)
    x = torch.randn(3, 48)
    torch.testing.assert_close(empty(x), sparse(x))
    wiped = SparseLinear(48, 40).to("meta").to_empty(device="cpu")
    wiped.load_state_dict(state)
    torch.testing.assert_close(wiped(x), sparse(x))


def test_a_new_layer_has_no_weights():
    layer = SparseLinear(5, 3)
    assert layer.nnz == 0
    assert torch.equal(layer(torch.randn(2, 5)), torch.zeros(2, 3))


def _run_in_child(layer: SparseLinear, x: torch.Tensor, out) -> None:
    out.put(layer(x).detach().numpy())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_sharing_between_processes(sparse, method):
    sparse.share_memory()
    assert sparse.packed.is_shared()
    context = torch.multiprocessing.get_context(method)
    x = torch.randn(3, 48)
    out = context.Queue()
    child = context.Process(target=_run_in_child, args=(sparse, x, out))
    child.start()
    result = out.get(timeout=60)
    child.join()
    assert child.exitcode == 0
    torch.testing.assert_close(torch.from_numpy(result), sparse(x).detach())


def test_compile_and_export(dense, sparse):
    model = nn.Sequential(sparse, nn.GELU(), SparseLinear(40, 4))
    x = torch.randn(5, 48)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected)
        batch = torch.export.Dim("batch", min=2, max=64)
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
        torch.testing.assert_close(exported.module()(x), expected)
        torch.testing.assert_close(exported.module()(torch.cat([x, x])), torch.cat([expected, expected]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trace(dense, sparse):
    with torch.no_grad():
        traced = torch.jit.trace(sparse, torch.randn(5, 48))
        x = torch.randn(3, 48)
        torch.testing.assert_close(traced(x), dense(x))


def test_compile_with_inductor_and_gradients(dense, sparse):
    compiled = torch.compile(sparse, fullgraph=True)
    x, y = torch.randn(4, 48, requires_grad=True), torch.randn(4, 48, requires_grad=True)
    y.data.copy_(x.data)
    compiled(x).square().sum().backward()
    dense(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)


def test_gradient_flows_to_input_and_bias_only(dense, sparse):
    x = torch.randn(3, 48, requires_grad=True)
    sparse(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(sparse.bias.grad, torch.full((40,), 3.0))
    assert all(name == "bias" for name, _ in sparse.named_parameters())


class TiedBias(nn.Module):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 16), nn.Linear(24, 16)
        self.two.bias = self.one.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + 2 * self.two(x)


@pytest.fixture
def tied() -> TiedBias:
    torch.manual_seed(0)
    model = TiedBias()
    prune(model, 0.5)
    for layer in (model.one, model.two):
        finalize(layer)
    return model


def test_a_bias_that_two_layers_share_stays_one(tied, tmp_path):
    dense, bias, x = copy.deepcopy(tied), tied.one.bias, torch.randn(5, 24)
    convert(tied, min_sparsity=0.0)
    assert tied.one.bias is bias
    assert tied.two.bias is bias
    tied(x).sum().backward()
    dense(x).sum().backward()
    torch.testing.assert_close(bias.grad, dense.one.bias.grad)
    with torch.no_grad():
        bias += 1
    save(tied, tmp_path / "model")
    opened = load(tmp_path / "model", model=TiedBias())
    assert opened.one.bias is opened.two.bias
    torch.testing.assert_close(opened(x), tied(x))
    filled = load_state_dict(TiedBias(), tied.state_dict())
    assert filled.one.bias is filled.two.bias
    torch.testing.assert_close(filled(x), tied(x))
    assert tied.double().one.bias is tied.float().two.bias
    densify(tied)
    assert tied.one.bias is bias
    assert tied.two.bias is bias


def test_one_of_two_layers_that_share_a_bias_is_converted(tied):
    bias = tied.one.bias
    convert(tied, ignore=["two"], min_sparsity=0.0)
    assert isinstance(tied.one, SparseLinear)
    assert tied.one.bias is tied.two.bias is bias


def freed(tensor: torch.Tensor) -> torch.Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


def test_freed_memory_is_refused_in_words(sparse):
    x = torch.randn(2, 48)
    with torch.inference_mode():
        for input in (freed(torch.randn(2, 48)), freed(torch.randn(4, 48)[2:]), freed(torch.randn(48, 2).t())):
            with pytest.raises(ValueError, match="input has 96 numbers and no memory"):
                sparse(input)
    with torch.no_grad(), pytest.raises(ValueError, match="input has 96 numbers and no memory"):
        sparse(freed(torch.randn(2, 48).half()))
    with pytest.raises(ValueError, match="input has 96 numbers and no memory"):
        sparse(freed(torch.randn(2, 48, requires_grad=True)))
    sparse.packed = sparse.packed.clone()
    sparse(x)
    freed(sparse.packed)
    with pytest.raises(ValueError, match="the packed weight has .* numbers and no memory"):
        sparse(x)
    other = SparseLinear.from_linear(nn.Linear(48, 40))
    freed(other.bias)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(ValueError, match="bias has 40 numbers and no memory"):
            other(x)
    with pytest.raises(ValueError, match="weight has 1920 numbers and no memory"):
        SparseLinear.from_linear(freed_weight())


def freed_weight() -> nn.Linear:
    linear = nn.Linear(48, 40)
    freed(linear.weight)
    return linear


def test_negative_bits_keep_their_sign(dense, sparse):
    x = torch.randn(5, 48)
    imaginary = torch.complex(torch.randn(5, 48), x).conj().imag
    assert imaginary.is_neg()
    with torch.inference_mode():
        for input in (torch._neg_view(x), imaginary, torch._neg_view(x.half()).float()):
            torch.testing.assert_close(sparse(input), dense(input.resolve_neg()), atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(sparse(torch._neg_view(x)), dense(-x))
        negative = copy.deepcopy(sparse)
        negative.bias = nn.Parameter(torch._neg_view(sparse.bias.detach()))
        assert negative.bias.is_neg()
        torch.testing.assert_close(negative(x), dense(x) - 2 * dense.bias)
    negated = nn.Linear(48, 40, bias=False)
    negated.weight = nn.Parameter(torch._neg_view(dense.weight.detach()))
    torch.testing.assert_close(SparseLinear.from_linear(negated)(x), -dense(x) + dense.bias)


def test_wrong_arguments(dense):
    with pytest.raises(TypeError, match=r"expected a torch.nn.Linear, got ReLU"):
        SparseLinear.from_linear(nn.ReLU())
    with pytest.raises(ValueError, match="activation must be None or one of"):
        SparseLinear.from_linear(dense, activation="swish")
    with pytest.raises(ValueError, match="layout must be one of .*, got 'ell'"):
        SparseLinear.from_linear(dense, layout="ell")
    with pytest.raises(ValueError, match=r"bias must have shape \[40\]"):
        SparseLinear.from_csr(CSR.from_torch(dense.weight), torch.zeros(3))


def test_default_dtype_and_device_do_not_matter(sparse):
    x = torch.randn(2, 48)
    expected = sparse(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(sparse(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(sparse(x), expected)


def test_two_threads_of_python_at_once(dense, sparse):
    from concurrent.futures import ThreadPoolExecutor

    inputs = [torch.randn(100, 48) for _ in range(16)]
    with torch.inference_mode():
        expected = [dense(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for result, wanted in zip(pool.map(sparse, inputs), expected, strict=True):
            torch.testing.assert_close(result.detach(), wanted)
