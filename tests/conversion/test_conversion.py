"""convert and densify."""

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparsekit import SparseLinear, conversion_report, convert, densify, finalize, load_state_dict, prune
from sparsekit.conversion.measuring.gain import Gain, measure


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.Linear(32, 4)).eval()


def test_convert_and_back(model):
    prune(model, 0.8, ignore=["3"])
    dense = finalize(copy.deepcopy(model))
    x = torch.randn(7, 64)
    expected = dense(x)
    report = conversion_report(convert(model, ignore=["3"], min_sparsity=0.5))
    assert [type(module).__name__ for module in model] == ["FusedLinear", "FusedActivation", "SparseLinear", "Linear"]
    assert report.fused == 1
    torch.testing.assert_close(model(x), expected)
    assert report.converted == 2
    first = report.layers[0]
    assert (first.name, first.shape, first.converted) == ("0", (64, 64), True)
    assert first.sparsity == pytest.approx(0.8, abs=0.01)
    assert first.bytes_before == 4 * (64 * 64 + 64)
    assert first.bytes_after == model[0].packed.numel() + 4 * 64
    assert report.bytes_after == sum(layer.bytes_after for layer in report.layers)
    assert densify(model) is model
    for mine, other in zip(model, dense, strict=True):
        if isinstance(mine, nn.Linear):
            assert torch.equal(mine.weight, other.weight)
    assert not any(isinstance(module, SparseLinear) for module in model.modules())


def test_the_report_says_why_not(model):
    prune(model, 0.9, targets=["0"])
    model.append(nn.TransformerEncoderLayer(8, 2, 16))
    model.append(nn.MultiheadAttention(8, 2))
    tied = nn.Linear(64, 64)
    tied.weight = model[2].weight
    model.append(tied)
    report = conversion_report(convert(model, min_sparsity=0.5))
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons["0"] == ""
    assert reasons["3"] == "sparsity below 50%"
    assert "shared with another module" in reasons["2"]
    assert reasons["4.linear1"] == reasons["5.out_proj"] == "sparsity below 50%"
    assert "1 of 14 layers converted" in str(report)
    assert report.to_dict()["converted"] == 1


def test_a_module_used_twice_is_swapped_in_both_places(model):
    model.append(model[0])
    prune(model, 0.9)
    convert(model, min_sparsity=0.0)
    assert model[4] is model[0]
    assert isinstance(model[4], SparseLinear)
    densify(model)
    assert model[4] is model[0]


def test_layers_below_the_limit_stay_dense_unless_asked(model):
    model[0].weight.data[:, :16] = 0.0  # a quarter
    model[2].weight.data[:, :6] = 0.0
    assert [layer.reason for layer in conversion_report(convert(copy.deepcopy(model), min_sparsity=0.5)).layers] == [
        "sparsity below 50%"
    ] * 3
    assert conversion_report(convert(copy.deepcopy(model), min_sparsity=0.2)).converted == 1
    assert conversion_report(convert(model, min_sparsity=0.0)).converted == 3


def test_layers_that_kernels_cannot_take_stay_dense(model):
    model[0].double()
    model[2].to("meta")
    model[3].register_forward_hook(lambda *_: None)
    reasons = [layer.reason for layer in conversion_report(convert(model, min_sparsity=0.0)).layers]
    for reason, word in zip(reasons, ("torch.float64", "on meta", "hooks"), strict=True):
        assert word in reason


def test_layers_that_would_be_slower_stay_dense(model, monkeypatch):
    """By shape: the first layer gains, the second loses with one token, the third is dense."""
    measured = []

    def measure(dense, layers, tokens, *again):
        assert isinstance(dense, nn.Linear)
        assert all(sparse.nnz == dense.weight.count_nonzero() for sparse in layers.values())
        if not again:
            measured.append(tuple(dense.weight.shape))
        slow = Gain(0.5 if dense.out_features == 32 else 2.0, noisy=dense.out_features == 32)
        return {layout: {count: slow if count == 1 else Gain(3.0) for count in tokens} for layout in layers}

    monkeypatch.setattr("sparsekit.conversion.measuring.gain.measure", measure)
    model.append(nn.Linear(64, 64))
    prune(model, 0.8, ignore=["3"])
    report = conversion_report(convert(model, tokens=(1, 32)))
    assert [layer.converted for layer in report.layers] == [True, False, False, True]
    assert report.layers[1].reason == "dense is faster at 1 token"
    assert report.layers[0].speedups == {1: 2.0, 32: 3.0}
    assert "speedup: times faster than dense on this machine, at 1 and 32 tokens" in str(report)
    assert "2.0x, 3.0x" in str(report)
    assert "~0.5x, 3.0x" in str(report)
    assert str(report).startswith("noisy (~): the machine was too busy to measure 1 of 4 layers well")
    assert report.to_dict()["layers"][1]["speedups"] == {1: 0.5, 32: 3.0}
    assert report.to_dict()["layers"][1]["noisy"] == (1,)
    assert measured == [(64, 64), (32, 64)], "layers that look alike are measured once"


@pytest.mark.parametrize(
    ("batches", "tokens"),
    [([], {1, 128}), ([3], {3}), ([2, 50, 7, 9], {2, 7, 50}), ([4, 4, 4, 4], {4})],
)
def test_layers_are_measured_with_as_many_tokens_as_batches_have(model, monkeypatch, batches, tokens):
    measured = set()
    monkeypatch.setattr(
        "sparsekit.conversion.measuring.gain.measure",
        lambda _, layers, tokens, *__: (
            measured.update(tokens) or {layout: {count: Gain(2.0) for count in tokens} for layout in layers}
        ),
    )
    prune(model, 0.8)
    convert(model, batches=[{"input": torch.randn(rows, 64)} for rows in batches])
    assert measured == tokens


def test_dense_layers_are_freed_as_they_are_replaced(model, monkeypatch):
    dense = [weakref.ref(layer) for layer in model if isinstance(layer, nn.Linear)]
    alive, before = [], SparseLinear.from_linear

    def from_linear(*args, **kwargs):
        gc.collect()
        alive.append(sum(layer() is not None for layer in dense))
        return before(*args, **kwargs)

    monkeypatch.setattr(SparseLinear, "from_linear", from_linear)
    convert(model, min_sparsity=0.0)
    assert alive == [3, 2, 1]


def test_what_is_measured_are_both_layers_on_this_machine(model):
    layers = {layout: SparseLinear.from_linear(model[0], layout=layout) for layout in ("sell", "csr")}
    gains = measure(model[0], layers, (1, 7))
    assert {layout: set(found) for layout, found in gains.items()} == {"sell": {1, 7}, "csr": {1, 7}}
    assert all(gain.times > 0 for found in gains.values() for gain in found.values())


def test_a_state_dict_loads_into_a_fresh_model(model):
    fresh = copy.deepcopy(model)
    prune(model, 0.8, ignore=["3"])
    convert(model, min_sparsity=0.5)
    x = torch.randn(3, 64)
    assert load_state_dict(fresh, model.state_dict()) is fresh
    assert [type(a) for a in fresh] == [type(b) for b in model]
    torch.testing.assert_close(fresh(x), model(x))
    with pytest.raises(ValueError, match="sparse weight for '0', where the model has a ReLU"):
        load_state_dict(nn.Sequential(nn.ReLU()), model.state_dict())


def test_densify_keeps_the_type_and_what_is_frozen(model):
    half = model.to(torch.bfloat16)
    half[0].bias.requires_grad_(False)
    convert(half, min_sparsity=0.0)
    densify(half)
    assert half[0].weight.dtype == torch.bfloat16
    assert not half[0].bias.requires_grad
    half(torch.randn(2, 64).bfloat16())


def test_bfloat16_models_keep_their_type(model):
    prune(model, 0.8)
    half = finalize(model).to(torch.bfloat16)
    x = torch.randn(5, 64).bfloat16()
    expected = half(x)
    convert(half, min_sparsity=0.5)
    result = half(x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": ()}, "tokens must be numbers of at least 1"),
        ({"tokens": (4, 0)}, "tokens must be numbers of at least 1"),
        ({"targets": ["Conv2d"]}, "'Conv2d' matches no module"),
        ({"ignore": ["Linear"]}, "leave no torch.nn.Linear"),
        ({}, "no layer has zeros, but only layers with at least 25% zeros would be converted"),
        ({"min_sparsity": 0.5}, "no layer has zeros, but only layers with at least 50% zeros would be converted"),
        ({"reference": nn.Identity()}, "reference needs batches"),
    ],
)
def test_bad_arguments_leave_the_model_alone(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(model, **arguments)
    assert isinstance(model[0], nn.Linear)


def test_layers_beyond_the_error_budget_keep_float_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    prune(model, 0.7)  # from 75% on, AVX2 does not quantize inputs
    finalize(model)
    model[2].bias.data[5] = 1e4  # this alone fills the bytes of what the last layer reads, and has no weight there
    model[4].weight.data[:, 5] = 0.0
    samples = [{"input": torch.randn(9, 64)} for _ in range(3)]
    wanted = [model(**sample) for sample in samples]
    with torch.no_grad():
        report = conversion_report(convert(model, dtype="int8", min_sparsity=0.5, error_budget=0.05, batches=samples))
    assert [layer.dtype for layer in report.layers] == ["int8", "int8", "float32"]
    errors = [layer.error for layer in report.layers]
    assert max(errors[:2]) <= 0.05 < errors[2]
    assert "error" in str(report)
    assert "float32" in str(report)
    for sample, output in zip(samples, wanted, strict=True):
        assert (model(**sample) - output).norm() <= 0.1 * output.norm()


def test_layers_that_the_batches_do_not_reach_keep_float_values():
    model = nn.ModuleDict({"used": nn.Linear(16, 16), "idle": nn.Linear(16, 16)})
    model.forward = lambda x: model["used"](x)
    prune(model, 0.8)
    report = conversion_report(
        convert(model, dtype="int8", min_sparsity=0.5, error_budget=0.1, batches=[{"x": torch.randn(4, 16)}])
    )
    assert {layer.name: (layer.dtype, layer.error is None) for layer in report.layers} == {
        "used": ("int8", False),
        "idle": ("float32", True),
    }


def test_an_error_budget_needs_batches(model):
    for budget, samples in ((0.1, []), (0.0, [{"input": torch.randn(1, 64)}])):
        with pytest.raises(ValueError, match="error_budget must be positive and needs batches"):
            convert(model, dtype="int8", error_budget=budget, batches=samples)


def test_lazy_modules():
    model = nn.Sequential(nn.Linear(8, 8), nn.LazyBatchNorm1d())
    report = conversion_report(convert(model, min_sparsity=0.0))
    assert report.converted == 1
    assert report.weights == 72
    with pytest.raises(ValueError, match="0.weight has no values yet, it is lazy; run the model once"):
        convert(nn.Sequential(nn.LazyLinear(8)), targets=["LazyLinear"], min_sparsity=0.0)


def test_a_warning_names_the_line_that_converts():
    with pytest.warns(UserWarning, match="no layer has zeros") as found:
        convert(nn.Sequential(nn.Linear(8, 8)), dtype="int8")
    assert found[0].filename == __file__


def test_convert_returns_the_model_and_keeps_its_report(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].weight.data[:, 2:] = 0.0
    with pytest.raises(ValueError, match=r"this Sequential has no conversion report: give the model that"):
        conversion_report(model)
    assert convert(model, min_sparsity=0.5) is model
    assert conversion_report(model).converted == 1
    torch.save(model.state_dict(), tmp_path / "state.pt")
    assert set(model.state_dict()) == {"0.crow_indices", "0.col_indices", "0.values", "0.bias"}
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        with pytest.raises(ValueError, match="not a copy"):
            conversion_report(other)
    with pytest.raises(ValueError, match="no conversion report"):
        conversion_report(densify(model))


def test_a_report_does_not_keep_its_model():
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].weight.data[:, 2:] = 0.0
    alive = weakref.ref(convert(model, min_sparsity=0.5))
    del model
    gc.collect()
    assert alive() is None


def test_reports_fit_80_columns():
    model = nn.ModuleDict({"a" * 30: nn.ModuleDict({"b" * 30: nn.Linear(4096, 8)}), "other": nn.Linear(8, 8)})
    prune(model, 0.8)
    report = conversion_report(convert(model, min_sparsity=0.0))
    layers = [
        replace(
            report.layers[0], dtype="bfloat16", block="4x1", error=0.01, speedups={1: 1.5, 128: 12.5}, noisy=(1, 128)
        ),
        replace(report.layers[1], speedups={1: 0.5, 128: 1.5}, reason="dense is faster at 1 token"),
    ]
    lines = str(replace(report, layers=tuple(layers))).splitlines()
    assert max(map(len, lines)) <= 80
    assert f"{'a' * 30}.{'b' * 30}" in lines
    assert "    dense is faster at 1 token" in lines
