"""A converted model against the dense model, in the report. Times are mocked; nothing is timed."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsekit import SparseLinear, conversion_report, convert, finalize, prune
from sparsekit.conversion.measuring import whole_model
from sparsekit.fidelity import fidelity
from sparsekit.fusion.fused_linear import FusedActivation, FusedLinear
from sparsekit.timing.comparing import Timing


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 32))
    prune(model, 0.8)
    return finalize(model)


@pytest.fixture
def batches() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [{"input": torch.randn(rows, 64)} for rows in (3, 9, 1, 5, 7)]


@pytest.fixture
def played(monkeypatch):
    """Seconds of the dense model and of the converted one; each function is run twice."""
    seconds = {"dense": 0.004, "converted": 0.001, "disturbed": 0}

    def compare(functions, **_):
        for function in [*functions.values()] * 2:
            function()
        times = {name: seconds[name.split()[0]] for name in functions}
        return {name: Timing(time, time, time, 9, seconds["disturbed"]) for name, time in times.items()}

    def compare_on_one_thread(functions, **_):
        return {name: replace(timing, low=2 * timing.low) for name, timing in compare(functions).items()}

    monkeypatch.setattr(whole_model, "compare", compare)
    monkeypatch.setattr(whole_model, "compare_on_one_thread", compare_on_one_thread)
    return seconds


def lines(report) -> list[str]:
    """The lines of a report, those that go on in the next one whole."""
    return str(report).replace("\n    ", " ").splitlines()


def test_the_whole_comes_first(model, batches, played):
    dense = copy.deepcopy(model)
    report = conversion_report(convert(model, min_sparsity=0.5, dtype="int8", batches=batches))
    assert lines(report)[0] == "whole model on 1 x 64, 5 x 64, 9 x 64: 4.00 times faster (4 ms dense, 1 ms converted)"
    assert lines(report)[1] == f"outputs against the same model dense: {fidelity(model, dense, batches)}"
    assert lines(report)[2].startswith("layer")
    assert report.whole.fidelity.cosine > 0.99
    assert 0 < report.whole.fidelity.error < 0.05
    assert not report.whole.fidelity.far
    assert report.to_dict()["whole"]["speedup"] == pytest.approx(4.0)
    assert [type(module) for module in model] == [FusedLinear, FusedActivation, nn.Dropout, SparseLinear]
    assert all(module.training for module in model)


def test_a_whole_that_is_slower_is_said_plainly_and_before_the_layers(model, batches, played):
    played["converted"] = 0.005
    report = conversion_report(convert(model, min_sparsity=0.5, batches=batches))
    assert "SLOWER, 0.80 times as fast" in lines(report)[0]
    assert lines(report)[1].startswith("whatever its layers seem to gain, the whole does not")


def test_a_noisy_whole_is_called_so(model, batches, played):
    played["disturbed"] = 8
    report = conversion_report(convert(model, min_sparsity=0.5, batches=batches))
    assert report.whole.noisy
    assert "4.00 times faster (8 ms dense, 2 ms converted; noisy: on one thread, by processor time" in lines(report)[0]


def test_both_models_are_run_on_batches_of_all_sizes(model, batches, played, monkeypatch):
    seen = []
    watch = lambda name: lambda layer, args: seen.append((name, len(args[0])))  # noqa: E731
    model[3].register_forward_pre_hook(watch("dense"))
    before = SparseLinear.forward
    monkeypatch.setattr(SparseLinear, "forward", lambda self, x: (seen.append(("sparse", len(x))), before(self, x))[1])
    model[3].register_forward_pre_hook(watch("dense"))
    monkeypatch.setattr("sparsekit.conversion.swapping.Swapper.why_not", lambda *_: "")
    convert(model, targets=["3"], min_sparsity=0.5, batches=batches)
    once = [(name, rows) for rows in (3, 9, 1, 5, 7) for name in ("sparse", "dense", "dense")]
    timed = [(name, rows) for kind in (["dense"] * 2, ["sparse"]) for rows in (1, 5, 9) for name in kind]
    assert seen == [("dense", 3)] * 2 + once + timed * 2, "the smallest, the middle and the largest are timed"


def test_the_reference_is_compared_too_and_what_moved_far_is_said(batches, played):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    model = copy.deepcopy(dense)
    prune(model, 0.95)
    report = conversion_report(convert(model, min_sparsity=0.5, batches=batches, reference=dense))
    assert report.whole.fidelity.cosine > 0.999
    assert report.reference == fidelity(model, dense, batches)
    assert lines(report)[2] == f"outputs against the reference: {report.reference}"
    assert lines(report)[3].startswith("they moved FAR: prune less")
    assert report.to_dict()["reference"]["cosine"] < 0.9


def test_conversion_that_moved_outputs_far_is_said(model, batches, played, monkeypatch):
    forward = SparseLinear.forward
    monkeypatch.setattr(SparseLinear, "forward", lambda self, x: -forward(self, x))
    report = conversion_report(convert(model, targets=["3"], min_sparsity=0.5, batches=batches))
    assert report.whole.fidelity.cosine == pytest.approx(-1.0)
    assert lines(report)[2] == "they moved FAR: take another dtype, or set error_budget"


def test_where_nothing_is_converted_there_is_nothing_to_compare(model, batches, played):
    report = conversion_report(convert(model, min_sparsity=0.9, batches=batches))
    assert (report.converted, report.whole) == (0, None)


def test_without_batches_nothing_is_said_of_the_whole(model):
    report = conversion_report(convert(model, min_sparsity=0.5))
    assert (report.whole, report.reference) == (None, None)
    assert lines(report)[0].startswith("layer")


class AnswersInPlace(nn.Module):
    """Writes what it computes into the mapping that it is given, as a `SentenceTransformer` does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        features["embedding"] = self.layer(features["input"])
        return features


def test_answers_written_into_the_inputs_are_not_taken_for_both_models(batches, played):
    model = AnswersInPlace()
    prune(model, 0.5)
    batches = [{"features": batch} for batch in batches]
    whole = conversion_report(convert(model, min_sparsity=0.5, dtype="int8", batches=batches)).whole
    assert whole.fidelity.error > 0.0
    assert whole.shapes == ((1, 64), (5, 64), (9, 64))
    assert set(batches[0]["features"]) == {"input"}


class ReadsWeight(nn.Module):
    """Calls its layer, and once that is sparse fails."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.act = nn.ReLU()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        first, second = self.layers
        return F.linear(self.act(first(input)), second.weight)


def test_where_the_converted_model_cannot_run_the_dense_one_is_put_back():
    model = ReadsWeight()
    prune(model, 0.8)
    before = list(model.layers)
    batch = {"input": torch.randn(2, 8)}
    wanted = finalize(copy.deepcopy(model))(**batch)
    with pytest.raises(RuntimeError, match="weight"):
        convert(model, min_sparsity=0.5, batches=[batch])
    assert list(model.layers) == before
    assert torch.equal(model(**batch), wanted)
    assert model.training


def test_batches_that_the_model_cannot_take_are_refused_before_anything_is_changed(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'ids'"):
        convert(model, min_sparsity=0.5, batches=[{"ids": torch.ones(1)}])
    model.append(nn.Flatten(0))
    model[-1].forward = lambda x: x.argmax()
    with pytest.raises(ValueError, match="must return tensors of floats"):
        convert(model, min_sparsity=0.5, batches=[{"input": torch.ones(1, 64)}])
    assert type(model[0]) is nn.Linear


def test_a_model_without_zeros_says_so_before_anything_is_measured(model, monkeypatch):
    dense = nn.Sequential(nn.Linear(64, 64))

    def measure(*_):
        raise AssertionError("said too late")

    monkeypatch.setattr("sparsekit.conversion.measuring.gain.measure", measure)
    with pytest.raises(ValueError, match="prune the model first"):
        convert(dense)
    with pytest.warns(UserWarning, match="no layer has zeros: int8 weights are all"), pytest.raises(AssertionError):
        convert(dense, dtype="int8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = conversion_report(convert(dense, dtype="int8", min_sparsity=0.0))
    assert lines(report)[0].startswith("no layer has zeros")
    prune(model, 0.5)
    convert(model, min_sparsity=0.25)  # masks count before they are baked in
