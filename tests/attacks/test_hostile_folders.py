"""Damaged or malicious folders: each is refused with a clear error, before anything is computed."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matrices import random_weight
from safetensors.numpy import load_file, save_file
from torch import nn

from sparsekit import SparseLinear, load, save, verify
from sparsekit.checkpoint import open_layers, weights
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.io.untrusted import LARGEST_JSON

NAMES = [f"0.{part}" for part in ("crow_indices", "col_indices", "values", "scales", "bias")]
NAMES += [f"2.{part}" for part in ("crow_indices", "col_indices", "values", "bias")]
DTYPES = {"uint8": "U8", "uint16": "U16", "uint32": "U32", "int8": "I8", "int64": "I64", "float16": "F16"}
DTYPES |= {"float32": "F32"}


def fresh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(33, 20), nn.Tanh(), nn.Linear(20, 6))


@pytest.fixture
def folder(rng, tmp_path, monkeypatch) -> Path:
    """An int8 layer and a float32 layer in CSR, both without empty rows from row 1 on."""
    monkeypatch.setattr(weights, "smallest_form", lambda weight: "csr")
    torch.manual_seed(0)
    model = fresh()
    for number, dtype, sparsity in ((0, "int8", 0.7), (2, "float32", 0.5)):
        shape = tuple(model[number].weight.shape)
        model[number].weight.data = torch.from_numpy(random_weight(rng, shape, sparsity))
        model[number] = SparseLinear.from_linear(model[number], dtype=dtype)
    save(model, tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, message: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=message):
        load(folder, model=fresh())


def refused_by_every_reader(fresh: Callable[[], nn.Module], folder: Path, message: str) -> None:
    """`load`, `open_layers` and `verify` refuse the folder of a model that `fresh` builds."""
    for read in (lambda path: load(path, model=fresh()), open_layers, verify):
        with pytest.raises(ValueError, match=message):
            read(folder)


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest and recompute its checksum."""

    def sealed(manifest: dict) -> None:
        change(manifest)
        parts = {key: manifest.get(key) for key in ("arrays", "embeddings", "format", "layers", "library", "shared")}
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()

    edit_json(folder / "sparsekit.json", sealed)


def forge(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change arrays and adapt the manifest, as an attacker would to pass the checksums."""
    arrays = {name: array.copy() for name, array in load_file(folder / "model.safetensors").items()}
    change(arrays)
    save_file(arrays, folder / "model.safetensors")
    entries = {
        name: {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }
        for name, array in arrays.items()
    }
    edit_manifest(folder, lambda manifest: manifest.update(arrays=entries))


def test_the_folder_is_good_before_anything_is_done_to_it(folder):
    load(folder, model=fresh())
    forge(folder, lambda arrays: None)
    load(folder, model=fresh())
    assert sorted(ModelFolder(folder).manifest.arrays) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_in_an_array(folder, name):
    path = folder / "model.safetensors"
    place = ArrayFile(path).places[name]
    for position in (place.begin, place.end - 1):
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        refused(folder, f"model.safetensors is damaged: array '{name}' has another checksum")
        path.write_bytes(original)


@pytest.mark.parametrize("name", ["model.safetensors", "sparsekit.json"])
def test_a_flipped_bit_anywhere_else_is_refused_or_harmless(folder, name):
    """Headers and the manifest: ValueError is the only exception, and no other model is loaded."""
    expected = ModelFolder(folder).manifest
    path = folder / name
    original = path.read_bytes()
    end = min(place.begin for place in ArrayFile(folder / "model.safetensors").places.values())
    for position in range(0, end if name == "model.safetensors" else len(original), 5):  # every kind of byte and bit
        damaged = bytearray(original)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = ModelFolder(folder)
            for array in found.manifest.arrays:
                found.raw(array)
        except ValueError:
            continue
        assert replace(found.manifest, verification=None) == replace(expected, verification=None)


@pytest.mark.parametrize("name", ["model.safetensors", "sparsekit.json"])
def test_files_cut_off(folder, name):
    path = folder / name
    whole = path.read_bytes().rstrip(b"\n")
    for length in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(folder, rf"{name}.* (is damaged|must|format)")
    path.write_bytes(whole + b"\0")
    refused(folder, f"{name} is damaged")
    path.unlink()
    refused(folder, f"{name}")


def test_a_file_that_changes_after_it_was_opened(folder):
    path = folder / "model.safetensors"
    stored = ModelFolder(folder)
    bias = stored.array("2.bias")
    before = bias.copy()
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert np.array_equal(bias, before), "what was checked is no view of the file"
    with pytest.raises(ValueError, match="'2.values' has another checksum"):
        stored.raw("2.values")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="model.safetensors is damaged .it was cut off at byte"):
        stored.raw("2.values")
    stored.read_ahead()
    with pytest.raises(ValueError, match="cut off"):
        stored.raw("2.bias")


def _set(array: np.ndarray, position: int, value: int) -> None:
    array[position] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: _set(a["2.crow_indices"], -1, a["2.values"].size + 1), "crow_indices must end at nnz"),
        (lambda a: _set(a["2.crow_indices"], -1, 2**32 - 1), "crow_indices must end at nnz"),
        (lambda a: _set(a["2.crow_indices"], 0, 1), "crow_indices must start at 0"),
        (lambda a: _set(a["2.crow_indices"], 3, 2**31), "crow_indices must never fall"),
        (lambda a: _set(a["2.col_indices"], -1, 20), r"col_indices must be in \[0, in_features\)"),
        (lambda a: _set(a["2.col_indices"], -1, 255), r"col_indices must be in \[0, in_features\)"),
        (
            lambda a: a["2.col_indices"].__setitem__(slice(-2, None), a["2.col_indices"][-2:][::-1]),
            "must rise strictly",
        ),
        (lambda a: _set(a["2.col_indices"], -2, a["2.col_indices"][-1]), "must rise strictly"),
        (lambda a: _set(a["0.scales"], 2, 0), "scales must be positive and finite"),
        (lambda a: a["0.scales"].__setitem__(2, np.nan), "finite"),
        (lambda a: a["0.scales"].__setitem__(2, 3e38), "finite"),
        (lambda a: _set(a["0.values"], 0, -128), "values must be from -127 to 127, got -128"),
        (lambda a: a.update({"2.crow_indices": a["2.crow_indices"][:-1].copy()}), r"must be U32 \[7\], got U32 \[6\]"),
        (lambda a: a.update({"2.col_indices": a["2.col_indices"][:-1].copy()}), "'2.col_indices' must be U8"),
        (lambda a: a.update({"2.values": a["2.values"][None]}), r"'2.values' must be F32 \[(\d+)\], got F32 \[1, \1\]"),
        (lambda a: a.update({"2.col_indices": a["2.col_indices"].astype(np.uint32)}), "'2.col_indices' must be U8"),
        (lambda a: a.update({"2.crow_indices": a["2.crow_indices"].astype(np.int64)}), "'2.crow_indices' must be U32"),
        (lambda a: a.update({"0.values": a["0.values"].astype(np.float32)}), "'0.values' must be I8"),
        (lambda a: a.pop("0.scales"), r"layer '0' lacks the arrays \['0.scales'\]"),
        (lambda a: a.pop("2.values"), r"layer '2' lacks the arrays \['2.values'\]"),
        (lambda a: a.pop("2.bias"), r"\['2.bias'\] missing"),
        (lambda a: a.update({"2.weight": np.zeros((6, 20), np.float32)}), r"\['2.weight'\] extra"),
        (lambda a: a.update({"2.bias": np.zeros(5, np.float32)}), "2.bias must be"),
        (lambda a: a.update({"2.bias": np.zeros(6, np.int64)}), "2.bias must be"),
    ],
)
def test_arrays_that_do_not_fit(folder, change, message):
    forge(folder, change)
    refused(folder, message)


HUGE = [2**31, 2**31]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "format must be 1, got 2"),
        (lambda m: m.update(format=True), "format must be 1, got True"),
        (lambda m: m.pop("format"), "format must be 1, got None"),
        (lambda m: m.update(code="os.system"), "expected the keys"),
        (lambda m: m.pop("shared"), "expected the keys"),
        (lambda m: m.pop("verification"), "expected the keys"),
        (lambda m: m.update(verification=[]), "verification must be an object"),
        (lambda m: m.update(layers=[]), "layers must be an object"),
        (lambda m: m.update(library=3), "library must be a version"),
        (lambda m: m["layers"]["2"].update(module="os"), "must have the keys"),
        (lambda m: m["layers"]["2"].update(dtype="float8"), "dtype must be one of"),
        (lambda m: m["layers"]["2"].update(dtype=["float32"]), "dtype must be one of"),
        (lambda m: m["layers"]["2"].update(block="8x1"), "block must be one of"),
        (lambda m: m["layers"]["2"].update(activation="none"), "activation must be one of"),
        (lambda m: m["layers"]["2"].update(activation="relu"), "was stored with the activation function relu"),
        (lambda m: m["layers"]["0"].update(in_model="dense"), "a layer that is dense in the model has a float dtype"),
        (lambda m: m["layers"]["2"].update(shape=[6, -20]), "shape must be"),
        (lambda m: m["layers"]["2"].update(shape=[6, 20.0]), "shape must be"),
        (lambda m: m["layers"]["2"].update(shape=HUGE), r"must be U32 \[2147483649\]"),
        (lambda m: m["layers"]["2"].update(shape=[6, 2**31 - 1]), "'2.col_indices' must be U32"),
        (lambda m: m["layers"]["2"].update(shape=[6, 255]), r"col_indices|2.bias|fit|shape"),
        (lambda m: m["arrays"]["2.bias"].update(shape=HUGE), r"must be F32 \[2147483648, 2147483648\], got F32 \[6\]"),
        (lambda m: m["arrays"]["2.bias"].update(dtype="I32"), r"must be I32 \[6\], got F32 \[6\]"),
        (lambda m: m["arrays"]["2.bias"].update(dtype="F8"), "dtype must be one of"),
        (lambda m: m["arrays"]["2.bias"].update(sha256="0" * 63), "sha256 must be 64 digits"),
        (lambda m: m["arrays"]["2.bias"].update(sha256="0" * 64), "another checksum"),
        (lambda m: m["arrays"].pop("2.bias"), r"\['2.bias'\] extra"),
        (lambda m: m["layers"].update({"1": m["layers"]["2"]}), "layer '1' lacks the arrays"),
        (lambda m: m["layers"].update({"": m["layers"]["2"]}), "layer '' lacks the arrays"),
        (lambda m: m["shared"].update({"2.weight": "2.values"}), "cannot share '2.values'"),
        (lambda m: m["shared"].update({"2.weight": "0.bias"}), r"\['2.weight'\] extra"),
        (lambda m: m["shared"].update({"2.bias": "0.bias"}), "'2.bias' cannot share '0.bias'"),
    ],
)
def test_a_manifest_that_does_not_fit(folder, change, message):
    edit_manifest(folder, change)
    if message == r"col_indices|2.bias|fit|shape":
        load(folder, model=fresh())  # a wider layer with the same entries is a good one
    else:
        refused(folder, message)


def test_rows_of_a_block_that_differ(folder):
    def declare(manifest):
        manifest["layers"]["0"]["block"] = "4x1"

    edit_manifest(folder, declare)
    refused(
        folder, "weight of layer '0' .* must have full blocks of 4x1, got rows of a block with entries in different"
    )
    with pytest.raises(ValueError, match="must have full blocks of 4x1"):
        open_layers(folder)


def test_a_sparse_weight_for_something_that_is_no_linear_layer(folder):
    def rename(arrays):
        for part in ("crow_indices", "col_indices", "values"):
            arrays[f"1.{part}"] = arrays.pop(f"2.{part}")

    edit_manifest(folder, lambda m: m["layers"].update({"1": m["layers"].pop("2")}))
    forge(folder, rename)
    refused(folder, "the folder has a sparse weight for '1', where the model has a Tanh")


def test_a_small_file_that_asks_for_all_memory(folder):
    rows = 4_000_000

    def widen(arrays):
        arrays["2.crow_indices"] = np.zeros(rows + 1, np.uint32)
        arrays["2.col_indices"] = np.zeros(0, np.uint32)
        arrays["2.values"] = np.zeros(0, np.float32)

    edit_manifest(folder, lambda m: m["layers"]["2"].update(shape=[rows, 2**31 - 1], nnz=0))
    forge(folder, widen)
    refused(folder, "far more than its files")


def test_headers_that_lie(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def write(text: str, said: int | None = None) -> None:
        path.write_bytes((len(text) if said is None else said).to_bytes(8, "little") + text.encode() + data)

    def changed(**fields) -> str:
        return json.dumps({**header, "2.bias": {**header["2.bias"], **fields}})

    begin, end = header["2.bias"]["data_offsets"]
    for text, message in (
        (changed(shape=HUGE), "must have 18446744073709551616 bytes"),
        (changed(shape=[True]), "a shape must have"),
        (changed(shape=[-6]), "a shape must have"),
        (changed(dtype="F128"), "must be of a type among"),
        (changed(dtype=None), "must be of a type among"),
        (changed(data_offsets=[begin, end + 4]), "must have 24 bytes"),
        (changed(data_offsets=[end, begin]), "must have 24 bytes"),
        (changed(data_offsets=[begin + 2**40, end + 2**40]), "must follow each other|describes"),
        (changed(data_offsets=[0]), "two data_offsets"),
        (changed(pickle="x"), "and nothing else"),
        (json.dumps(header).replace('"0.bias"', '"2.bias"'), "stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "no JSON object"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "damaged"),
    ):
        write(text)
        refused(folder, message)
    for said in (2**63, 2**64 - 1, 10**6, 10**8 + 1):
        write(json.dumps(header), said)
        refused(folder, "its header of")


def sharded(folder: Path) -> Path:
    """The same folder with several weight files."""
    model = load(folder, model=fresh())
    save(model, folder, max_shard_size=200)
    return folder / "model.safetensors.index.json"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "..", "", "model.safetensors", "a/b", "model-00001-of-00002.bin", 3, None, "x\0y"]
)
def test_an_index_that_names_other_files(folder, name):
    index = sharded(folder)
    edit_json(index, lambda value: value["weight_map"].update({"2.bias": name}))
    refused(folder, re.escape("'2.bias' must lie in a file like model-00001-of-00002.safetensors of this folder"))


def test_an_index_that_does_not_fit(folder):
    index = sharded(folder)
    good = index.read_text()
    for change, message in (
        (lambda v: v["weight_map"].pop("2.bias"), "does not name the arrays"),
        (lambda v: v["weight_map"].update(x=v["weight_map"]["2.bias"]), "does not name the arrays"),
        (lambda v: v["weight_map"].update({"2.bias": v["weight_map"]["0.values"]}), "does not name the arrays"),
        (lambda v: v["weight_map"].update({"2.bias": "model-00077-of-00077.safetensors"}), "is missing"),
        (lambda v: v.pop("weight_map"), "must hold metadata and weight_map"),
        (lambda v: v.update(weight_map=[]), "must hold metadata and weight_map"),
        (lambda v: v.update(extra=1), "must hold metadata and weight_map"),
    ):
        edit_json(index, change)
        refused(folder, message)
        index.write_text(good)
    load(folder, model=fresh())


@pytest.mark.parametrize("name", ["model.safetensors", "sparsekit.json"])
def test_links_out_of_the_folder(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, f"{name} is a link out of the folder")
    (folder / name).unlink()
    (folder / name).symlink_to(folder / name)
    refused(folder, name)
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, f"{name} must be a plain file")


@pytest.mark.parametrize("name", ["sparsekit.json", "model.safetensors.index.json"])
def test_json_of_any_size_or_kind(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(LARGEST_JSON + 1)  # takes no room
    refused(folder, f"{name} must have at most 33554432 bytes, got 33554433")
    for text, message in (
        (b"[]", "must hold an object, got a list"),
        (b'{"format": 1, "format": 1}', "stands twice"),
        (b'{"format": NaN}', "NaN is no JSON number"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"\xff\xfe", "is damaged"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is damaged"),
    ):
        (folder / name).write_bytes(text)
        refused(folder, message)
