"""`verify` finds damage and wrong results, and accepts rounding errors."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matrices import blocked_weight, random_weight
from safetensors.torch import load_file, save_file
from test_checkpoint_transformers import sparse_bert
from torch import nn
from typer.testing import CliRunner

import sparsekit
from sparsekit import SparseLinear, load, runtime, save, verify
from sparsekit.checkpoint.verification import outputs
from sparsekit.cli import app, run
from sparsekit.folder.layer_checks import compare
from sparsekit.formats.dtypes import WEIGHT_DTYPES

INPUTS = {"input_ids": torch.arange(5, 23).reshape(2, 9)}


def fresh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(300, 64), nn.Tanh(), nn.Linear(64, 8))


def small(rng, dtype: str = "float32", block: str = "1x1") -> nn.Sequential:
    torch.manual_seed(0)
    model = fresh()
    make = blocked_weight if block == "4x1" else random_weight
    model[0].weight.data = torch.from_numpy(make(rng, (64, 300), 0.8))
    model[0] = SparseLinear.from_linear(model[0], dtype=dtype)
    assert model[0].block == ("1x1" if dtype == "int4" else block)
    return model


@pytest.fixture
def folder(tmp_path) -> Path:
    save(sparse_bert(), tmp_path / "model", verify_inputs=INPUTS)
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / "sparsekit.json").read_text())
    change(manifest["verification"])
    (folder / "sparsekit.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("block", ["1x1", "4x1"])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_layers_are_within_what_rounding_explains(rng, tmp_path, isa, dtype, block):
    save(small(rng, dtype, block), tmp_path / "model")
    report = verify(tmp_path / "model")
    assert report.passed
    check = report.layers["0"]
    assert check == report.stored["0"], "the same machine computes the same"
    assert 0.0 < check.relative < check.tolerance
    assert check.tolerance < (0.2 if dtype in ("int8", "int4") else 2e-4)
    assert report.note == "outputs were not compared: the folder was saved without verify_inputs"


def test_outputs_are_compared_and_shown(folder):
    report = verify(folder)
    assert report.passed
    assert report.outputs["logits"].absolute == 0.0
    assert report.outputs["logits"].tolerance == 1e-4
    assert report.note == ""
    lines = str(report).splitlines()
    assert lines[0].split() == ["layer", "error", "relative", "when", "saved", "tolerance"]
    assert lines[-2].startswith("output logits")
    assert lines[-1] == f"checksums of {report.arrays} arrays are right, all errors are within their tolerances"
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True
    assert len(report.layers) == 12


def test_a_model_of_ones_own_code(rng, tmp_path):
    model = small(rng).train()
    x = torch.randn(3, 300)
    save(model, tmp_path / "model", verify_inputs={"input": x})
    assert model.training
    report = verify(tmp_path / "model")
    assert report.passed
    assert "need the model; call sparsekit.verify(folder, model=...)" in str(report)
    report = verify(tmp_path / "model", model=fresh())
    assert report.outputs["0"].absolute == 0.0
    assert torch.equal(load(tmp_path / "model", model=fresh())(x), model(x)), "the folder loads as ever"


def test_a_folder_without_sparse_layers(tmp_path):
    save(nn.Sequential(nn.Linear(4, 3)), tmp_path / "model")
    first, *rest = str(verify(tmp_path / "model")).splitlines()
    assert first == "checksums of 2 arrays are right, there are no sparse layers to check"
    assert len(rest) == 1


def test_a_kernel_that_computes_wrongly_is_found(folder, monkeypatch):
    right = runtime.linear
    monkeypatch.setattr(runtime, "linear", lambda x, packed: right(x, packed) * np.float32(1.0001))
    report = verify(folder)
    assert not report.passed
    assert "12 of 13 errors are too large" in str(report)
    monkeypatch.setattr(runtime, "linear", lambda x, packed: np.full_like(right(x, packed), np.nan))
    assert not verify(folder).passed


def test_other_outputs_are_found(folder):
    path = folder / "verification.safetensors"
    arrays = load_file(path)
    arrays["outputs.logits"][0, 0] += 1e-3
    save_file(arrays, path)
    with pytest.raises(ValueError, match=r"verification.safetensors is damaged, its checksum is another"):
        verify(folder)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, lambda value: value["outputs"].update(sha256=checksum))
    report = verify(folder)
    assert not report.passed
    assert report.outputs["logits"].absolute == pytest.approx(1e-3, rel=1e-3)


def test_the_stored_tolerance_counts(folder):
    edit(folder, lambda value: value["layers"]["bert.encoder.layer.0.output.dense"].update(tolerance=0))
    report = verify(folder)
    assert "1 of 13 errors are too large" in str(report)
    assert "too large" in next(line for line in str(report).splitlines() if "layer.0.output.dense" in line)


def test_a_folder_that_holds_nothing_to_compare_with_is_checked_all_the_same(folder):
    manifest = json.loads((folder / "sparsekit.json").read_text())
    manifest["verification"] = None
    (folder / "sparsekit.json").write_text(json.dumps(manifest))
    report = verify(folder)
    assert report.passed
    assert (len(report.layers), report.stored) == (12, {})


def test_damage_is_found(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match="has another checksum than sparsekit.json says"):
        verify(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("seed"), "must have the keys seed, tokens, layers and outputs"),
        (lambda v: v.update(seed=-1), "seed must be a number from 0"),
        (lambda v: v.update(tokens=10**9), "tokens must be a number from 1 to 64"),
        (lambda v: v.update(tokens=True), "tokens must be a number"),
        (lambda v: v["layers"].pop("bert.encoder.layer.0.output.dense"), "must hold the sparse layers"),
        (lambda v: v.update(layers=[]), "must hold the sparse layers"),
        (lambda v: v["layers"].update({"bert.encoder.layer.0.output.dense": 1}), r"must have the keys \['absolute'"),
        (lambda v: v["layers"]["bert.encoder.layer.0.output.dense"].update(tolerance="1"), "must be a number of at"),
        (lambda v: v["layers"]["bert.encoder.layer.0.output.dense"].update(tolerance=-1), "must be a number of at"),
        (lambda v: v.update(outputs=1), r"outputs must have the keys \['sha256', 'tolerance'\]"),
        (lambda v: v["outputs"].update(sha256=None), "verification.safetensors is damaged"),
        (lambda v: v["outputs"].update(tolerance=[]), "outputs.tolerance must be a number"),
    ],
)
def test_a_strange_record_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message):
        verify(folder)
    load(folder)  # which passes it over


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs.input_ids": torch.full((1, 4), 10**6)}, "safetensors: the model cannot run on the inputs: "),
        ({"inputs.abacus": torch.zeros(2)}, "safetensors: the model cannot run on the inputs: "),
        ({"inputs.input_ids": torch.zeros((5, 10**3), dtype=torch.int64)}, "input_ids must have at most 4096 numbers"),
        ({"inputs.input_ids": torch.zeros((1, 4), dtype=torch.int64)}, "the model must return what"),
        ({}, "inputs must be tensors by the names"),
    ],
)
def test_strange_inputs_are_refused(folder, arrays, message):
    path = folder / "verification.safetensors"
    save_file(arrays, path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, lambda value: value["outputs"].update(sha256=checksum))
    with pytest.raises((ValueError, TypeError), match=message):
        verify(folder)


def test_inputs_that_cannot_be_stored(rng, tmp_path, monkeypatch):
    model, x = small(rng), torch.randn(3, 300)
    for inputs, error, message in (
        ({"input": "text"}, TypeError, "inputs must be tensors by the names of the model's arguments"),
        ({}, TypeError, "inputs must be tensors"),
        ({"input": torch.zeros(4000, 300)}, ValueError, "input must have at most 1048576 numbers, got 1200000"),
        ({"input": x * torch.inf}, ValueError, "the model must return finite floats"),
    ):
        with pytest.raises(error, match=message):
            save(model, tmp_path / "model", verify_inputs=inputs)
    monkeypatch.setattr(outputs, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="inputs and outputs must have at most 1000 bytes, got 3696"):
        save(model, tmp_path / "model", verify_inputs={"input": x})
    with pytest.raises(ValueError, match="a dense folder has no place for verify_inputs"):
        save(model, tmp_path / "model", verify_inputs={"input": x}, dense=True)
    assert list(tmp_path.iterdir()) == []


def test_the_next_save_takes_the_stored_inputs_away(rng, tmp_path):
    save(small(rng), tmp_path / "model", verify_inputs={"input": torch.randn(3, 300)})
    save(small(rng), tmp_path / "model")
    assert not (tmp_path / "model" / "verification.safetensors").exists()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 1e-42])
def test_awkward_weights(tmp_path, value):
    model = nn.Sequential(nn.Linear(40, 12), nn.Linear(12, 3), nn.Linear(3, 0), nn.Linear(0, 2))
    for layer in model:
        layer.weight.data.zero_()
    model[0].weight.data[2] = value
    model[0].weight.data[5, 7] = 1.0
    for number in range(4):
        model[number] = SparseLinear.from_linear(model[number])
    save(model, tmp_path / "model")
    report = verify(tmp_path / "model")
    assert [name for name, check in report.layers.items() if not check.passed] == (["0"] if value == 3e38 else [])
    assert report.layers["1"].absolute == report.layers["3"].absolute == 0.0


def test_numbers_are_compared_where_they_are_numbers():
    same = np.array([1.0, np.inf, np.nan])
    assert compare(same, same, 0.0).passed
    other = compare(np.array([1.0, np.inf]), np.array([1.0, 2.0]), 1.0)
    assert not other.passed
    assert json.dumps(vars(other), allow_nan=False)
    assert compare(np.zeros(0), np.zeros(0), 0.0).relative == 0.0


def test_verify_is_at_hand():
    assert sparsekit.verify is verify
    assert sparsekit.VerificationReport.__name__ == "VerificationReport"


HOSTILE = "\x1b[2J\u202e[red]:bomb:"


def hostile_names(folder: Path) -> Path:
    """A folder whose layer has a name that a terminal and rich would act on."""
    layer = nn.Linear(8, 4)
    layer.weight.data[:, 1:] = 0.0
    model = nn.Sequential()
    model.add_module(HOSTILE, SparseLinear.from_linear(layer))
    save(model, folder)
    return folder


def test_names_are_shown_as_they_are(tmp_path):
    result = CliRunner().invoke(app, ["verify", str(hostile_names(tmp_path / "model"))])
    assert result.exit_code == 0
    assert "\\x1b[2J\\u202e[red]:bomb:" in result.output
    assert "\x1b" not in result.output


def test_names_in_errors_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    folder = hostile_names(tmp_path / f"{HOSTILE}-model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + b"x")
    monkeypatch.setattr("sys.argv", ["sparsekit", "verify", str(folder)])
    with pytest.raises(SystemExit, match="1"):
        run()
    shown = capsys.readouterr().err
    assert "another checksum" in shown
    assert "[red]:bomb:-model" in shown
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown


def test_names_in_the_report_of_convert(tmp_path):
    layer = nn.Linear(8, 4)
    layer.weight.data[:, 1:] = 0.0
    model = nn.Sequential()
    model.add_module(HOSTILE, layer)
    report = str(sparsekit.conversion_report(sparsekit.convert(model, min_sparsity=0.5)))
    assert "\\x1b[2J" in report
    assert "\x1b" not in report
