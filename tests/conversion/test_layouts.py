"""convert picks the layout of each layer by measurement. Times are mocked; nothing is timed."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparsekit import CSR, SparseLinear, conversion_report, convert, finalize, prune
from sparsekit.conversion.measuring import gain
from sparsekit.conversion.measuring.gain import Gain, GainTable, best_layout, measure
from sparsekit.conversion.measuring.one_thread import compare_on_one_thread
from sparsekit.conversion.measuring.sensitivity import output_errors
from sparsekit.timing.comparing import Timing

#: How many times faster than dense, by layout and number of tokens: a table of one token, a tile of many.
GAINS = {"sell": {1: 6.0, 8: 2.0, 64: 1.3}, "csr": {1: 1.5, 8: 4.0, 64: 3.0}}


@pytest.fixture
def layouts(monkeypatch) -> list[str]:
    """What is worth measuring, the preferred one first, on any instruction set; to be changed by a test."""
    found, pack = ["sell", "csr"], CSR.pack

    def preferring(csr, dtype="float32", *, layout=None, **how):
        return pack(csr, dtype, layout=layout or found[0], **how)

    monkeypatch.setattr(CSR, "layouts", lambda csr, dtype="float32": tuple(found))
    monkeypatch.setattr(CSR, "pack", preferring)
    return found


@pytest.fixture
def measured(monkeypatch) -> list[tuple[list[str], list[int]]]:
    """Plays GAINS; layouts and numbers of tokens of each measurement."""
    calls = []

    def play(dense, layers, tokens, *_):
        calls.append((list(layers), list(tokens)))
        assert {layout: sparse.layout for layout, sparse in layers.items()} == {layout: layout for layout in layers}
        return {layout: {count: Gain(GAINS[layout][count]) for count in tokens} for layout in layers}

    monkeypatch.setattr(gain, "measure", play)
    return calls


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval()
    prune(model, 0.8)
    return finalize(model)


@pytest.mark.usefixtures("layouts")
@pytest.mark.parametrize(
    ("tokens", "wanted"), [((1,), "sell"), ((8,), "csr"), ((64,), "csr"), ((1, 8), "sell"), ((1, 8, 64), "csr")]
)
def test_the_best_for_the_numbers_of_tokens_given(model, measured, tokens, wanted):
    x = torch.randn(3, 64)
    expected = model(x)
    report = conversion_report(convert(model, tokens=tokens))
    assert [layer.layout for layer in model] == [wanted] * 2
    assert [layer.layout for layer in report.layers] == [wanted] * 2
    assert [layer["layout"] for layer in report.to_dict()["layers"]] == [wanted] * 2
    assert report.layers[0].speedups == {count: GAINS[wanted][count] for count in tokens}
    assert measured == [(["sell", "csr"], list(tokens))], "both in one comparison, of one of the two layers"
    torch.testing.assert_close(model(x), expected)


def gains(*times: float) -> dict[int, Gain]:
    return {count: Gain(found) for count, found in enumerate(times, 1)}


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (gains(2.0, 2.0), gains(1.5, 3.0), "csr"),  # the larger mean
        (gains(2.0, 2.0), gains(2.0, 2.0), "sell"),  # the preferred one
        (gains(1.0, 1.1), gains(0.9, 9.0), "sell"),  # never slower than dense
        (gains(0.9, 9.0), gains(1.0, 1.1), "csr"),
        (gains(0.9, 0.5), gains(0.8, 0.7), "csr"),  # both are slower
    ],
)
def test_one_that_is_never_slower_than_dense_goes_first(first, second, wanted):
    assert best_layout({"sell": first, "csr": second}) == wanted


@pytest.mark.usefixtures("layouts")
def test_a_layer_is_dense_where_every_layout_is_slower(model, measured, monkeypatch):
    monkeypatch.setitem(GAINS, "sell", {1: 3.0, 8: 0.5})
    monkeypatch.setitem(GAINS, "csr", {1: 0.9, 8: 3.0})
    report = conversion_report(convert(model, tokens=(1, 8)))
    assert [(layer.layout, layer.reason) for layer in report.layers] == [("", "dense is faster at 1 token")] * 2
    assert type(model[0]) is nn.Linear


def test_where_there_is_one_layout_nothing_more_is_measured_or_packed(model, layouts, measured, monkeypatch):
    layouts.remove("csr")
    packed, pack = [], CSR.pack
    monkeypatch.setattr(CSR, "pack", lambda csr, *args, **kwargs: packed.append(1) or pack(csr, *args, **kwargs))
    convert(model, tokens=(1, 8))
    assert measured == [(["sell"], [1, 8])]
    assert len(packed) == 1 + len(model), "one to measure"
    assert [layer.chosen_layout for layer in model] == [None] * 2


@pytest.mark.usefixtures("layouts")
def test_without_measuring_layers_have_the_preferred_layout(model, measured):
    report = conversion_report(convert(model, min_sparsity=0.5))
    assert [layer.layout for layer in report.layers] == ["sell"] * 2
    assert [layer.chosen_layout for layer in model] == [None] * 2
    assert measured == []


@pytest.mark.usefixtures("layouts")
def test_what_is_doubtful_is_measured_again_alone(model, monkeypatch):
    calls = []
    played = {"sell": [Gain(3.0)], "csr": [Gain(0.2), Gain(4.0, noisy=True), Gain(3.9, noisy=True), Gain(3.5)]}

    def play(dense, layers, tokens, *how):
        calls.append((list(layers), compare_on_one_thread in how))
        return {layout: {tokens[0]: played[layout].pop(0)} for layout in layers}

    monkeypatch.setattr(gain, "measure", play)
    table = GainTable([1])
    table.survey([(model[0], "float32")])
    assert table.of(model[0], SparseLinear.from_linear(model[0])) == {
        "sell": {1: Gain(3.0)},
        "csr": {1: Gain(3.5, noisy=True)},
    }
    assert calls == [(["sell", "csr"], False), (["csr"], False), (["csr"], False), (["csr"], True)]


def test_all_layouts_and_the_dense_layer_are_compared_in_turns(model):
    compared = []

    def compare(functions, **_):
        for function in functions.values():
            function()
        compared.append(list(functions))
        seconds = {"dense": 6.0, "sell": 3.0, "csr": 2.0}
        return {name: Timing(seconds[name], seconds[name], seconds[name], 9) for name in functions}

    layers = {layout: SparseLinear.from_linear(model[0], layout=layout) for layout in ("sell", "csr")}
    assert measure(model[0], layers, (1, 7), compare=compare) == {
        "sell": {1: Gain(2.0), 7: Gain(2.0)},
        "csr": {1: Gain(3.0), 7: Gain(3.0)},
    }
    assert compared == [["dense", "sell", "csr"]] * 2


@pytest.mark.usefixtures("layouts", "measured")
@pytest.mark.parametrize(
    ("budget", "wanted"), [(0.5, ("int8", "sell")), (0.001, ("int8", "csr")), (1e-9, ("float32", "sell"))]
)
def test_only_layouts_within_the_error_budget_are_taken(model, monkeypatch, budget, wanted):
    def errors(model, layers, dtype, batches, *, every_layout):
        assert every_layout
        return {name: {"sell": 0.01, "csr": 1e-4} for name in layers}

    monkeypatch.setattr("sparsekit.conversion.swapping.output_errors", errors)
    batches = [{"input": torch.randn(1, 64)}]
    report = conversion_report(convert(model, tokens=(1,), dtype="int8", error_budget=budget, batches=batches))
    assert [(layer.dtype, layer.layout) for layer in report.layers] == [wanted] * 2
    assert report.layers[0].error == {"sell": 0.01, "csr": 1e-4}[wanted[1]]


@pytest.mark.usefixtures("layouts", "measured")
def test_errors_are_those_of_each_layout(model):
    """In SELL inputs are quantized too."""
    batches = [{"input": torch.randn(9, 64)}]
    dense = copy.deepcopy(model)
    taken = {}
    for tokens in ((1,), (8,)):
        converted = convert(copy.deepcopy(dense), tokens=tokens, dtype="int8", error_budget=0.5, batches=batches)
        layer = conversion_report(converted).layers[0]
        taken[layer.layout] = layer.error
    assert set(taken) == {"sell", "csr"}
    assert 0.0 < taken["csr"] < taken["sell"]


@pytest.mark.usefixtures("layouts")
@pytest.mark.parametrize(("every_layout", "wanted"), [(False, {"sell"}), (True, {"sell", "csr"})])
def test_without_measuring_errors_are_those_of_the_preferred_layout(model, every_layout, wanted):
    batches = [{"input": torch.randn(9, 64)}]
    found = output_errors(model, {"0": model[0]}, "int8", batches, every_layout=every_layout)
    assert set(found["0"]) == wanted


def test_the_report_names_layouts_where_they_differ(model):
    report = conversion_report(convert(model, min_sparsity=0.5))
    alike = [replace(layer, dtype="int8", layout="csr") for layer in report.layers]
    assert "csr" not in str(replace(report, layers=tuple(alike)))
    other = replace(alike[1], layout="sell", block="4x1")
    lines = str(replace(report, layers=(alike[0], other))).splitlines()
    assert lines[1].endswith("int8 csr")
    assert lines[2].endswith("int8 4x1 sell")
