"""Damaged or malicious sparse weights in dense arrays: each is refused with a clear error, with and without torch."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matrices import random_weight
from test_hostile_folders import edit_manifest, forge, refused_by_every_reader
from torch import nn

from sparsekit import SparseLinear, load, save, verify
from sparsekit.checkpoint import weights
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.safetensors_file import ArrayFile

#: Layers in int8 with and without places that are no entries, and in float32.
LAYERS = {"0": (20, 33), "1": (12, 20), "2": (6, 12)}
NAMES = ["0.values", "0.zeros", "0.scales", "1.values", "1.scales", "2.values", "2.zeros"]


def fresh() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(shape[1], shape[0], bias=False) for shape in LAYERS.values()))


@pytest.fixture
def folder(rng, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(weights, "smallest_form", lambda weight: "dense")
    torch.manual_seed(0)
    model = fresh()
    model[0].weight.data = torch.from_numpy(random_weight(rng, LAYERS["0"], 0.1))
    model[0].weight.data[3, 4:7] = 1e-6  # entries that are zero in int8
    model[2].weight.data[2, 3:6] = 0.0
    for layer, dtype in zip(LAYERS, ("int8", "int8", "float32"), strict=True):
        model[int(layer)] = SparseLinear.from_linear(model[int(layer)], dtype=dtype)
    save(model, tmp_path / "model")
    return tmp_path / "model"


refused = partial(refused_by_every_reader, fresh)


def test_the_folder_is_good_before_anything_is_done_to_it(folder):
    assert sorted(ModelFolder(folder).manifest.arrays) == sorted(NAMES)
    assert ModelFolder(folder).array("0.zeros").size >= 3
    forge(folder, lambda arrays: None)
    load(folder, model=fresh())
    assert verify(folder).passed


@pytest.mark.parametrize("name", [name for name in NAMES if name != "2.zeros"])  # which has no bytes
def test_a_flipped_bit(folder, name):
    path = folder / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[ArrayFile(path).places[name].begin] ^= 0x10
    path.write_bytes(damaged)
    refused(folder, f"array '{name}' has another checksum")


def put(name: str, position: int, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name].reshape(-1)[position] = value

    return change


def replaced(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda arrays: arrays.update({name: np.ascontiguousarray(change(arrays[name]))})


def at_an_entry(arrays: dict[str, np.ndarray]) -> None:
    arrays["0.zeros"][-1] = arrays["0.values"].size - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("0.values", 50, -128), "weight of layer '0' .*: int8 values must be from -127 to 127, got -128"),
        (put("1.values", 0, -128), "weight of layer '1' .*: int8 values must be from -127 to 127, got -128"),
        (put("0.values", 0, 1), r"weight of layer '0' .*: expected \d+ entries, got \d+ in the dense array"),
        (put("0.values", -1, 0), r"weight of layer '0' .*: expected \d+ entries, got \d+ in the dense array"),
        (put("2.values", 27, np.nan), r"weight of layer '2' .*: expected \d+ entries, got \d+ in the dense array"),
        (put("0.scales", 2, 0.0), "scales must be positive and finite"),
        (put("1.scales", 2, np.nan), "scales must be positive and finite"),
        (put("0.zeros", 0, 2**32 - 1), "zeros must rise strictly from 0 to 659 at most"),
        (put("0.zeros", -1, 660), "zeros must rise strictly from 0 to 659 at most"),
        (put("0.zeros", -1, 0), "zeros must rise strictly"),
        (replaced("0.zeros", lambda zeros: zeros[::-1]), "zeros must rise strictly"),
        (replaced("0.zeros", lambda zeros: zeros.repeat(2)), "zeros must rise strictly"),
        (replaced("0.zeros", lambda zeros: zeros[1:]), r"expected \d+ entries, got \d+"),
        (at_an_entry, "zeros must name places of zeros, got 659, whose value is another"),
        (replaced("0.zeros", lambda zeros: zeros[None]), "'0.zeros' must have one dimension"),
        (replaced("0.zeros", lambda zeros: zeros.astype(np.int64)), r"'0.zeros' must be U32 .*, got I64"),
        (replaced("0.values", np.ravel), r"'0.values' must be I8 \[20, 33\], got I8 \[660\]"),
        (replaced("0.values", lambda values: values.T), r"'0.values' must be I8 \[20, 33\], got I8 \[33, 20\]"),
        (replaced("0.values", lambda values: values[:-1]), r"'0.values' must be I8 \[20, 33\], got I8 \[19, 33\]"),
        (replaced("0.values", lambda values: values.view(np.uint8)), r"must be I8 \[20, 33\], got U8 \[20, 33\]"),
        (replaced("2.values", lambda values: values.astype(np.int8)), r"'2.values' must be F32 \[6, 12\], got I8"),
        (replaced("0.scales", lambda scales: scales[1:]), r"'0.scales' must be F32 \[20\], got F32 \[19\]"),
        (lambda arrays: arrays.pop("0.zeros"), r"layer '0' lacks the arrays \['0.zeros'\]"),
        (lambda arrays: arrays.pop("0.values"), r"layer '0' lacks the arrays \['0.values'\]"),
        (lambda arrays: arrays.pop("1.scales"), r"layer '1' lacks the arrays \['1.scales'\]"),
        (
            lambda arrays: arrays.update({"0.crow_indices": np.zeros(21, np.uint32)}),
            r"layer '0' of the form dense with \d+ entries must not have \['0.crow_indices'\]",
        ),
        (
            lambda arrays: arrays.update({"1.zeros": np.zeros(0, np.uint32)}),
            r"layer '1' of the form dense with 240 entries must not have \['1.zeros'\]",
        ),
    ],
)
def test_arrays_that_do_not_fit(folder, change, message):
    forge(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["layers"]["0"].update(form="csr"), r"layer '0' lacks the arrays \['0.crow_indices', '0.col_ind"),
        (
            lambda m: m["layers"]["0"].update(form="CSR"),
            r"form must be one of \['csr', 'bitmask', 'dense'\], got 'CSR'",
        ),
        (lambda m: m["layers"]["0"].update(form=["csr", "dense"]), "form must be one of"),
        (lambda m: m["layers"]["0"].update(form=None), "form must be one of"),
        (lambda m: m["layers"]["0"].pop("form"), "must have the keys"),
        (lambda m: m["layers"]["0"].pop("nnz"), "must have the keys"),
        (lambda m: m["layers"]["0"].update(nnz=-1), r"nnz must be from 0 to 20 \* 33, got -1"),
        (lambda m: m["layers"]["0"].update(nnz=661), r"nnz must be from 0 to 20 \* 33, got 661"),
        (lambda m: m["layers"]["0"].update(nnz=True), "nnz must be from 0 to"),
        (lambda m: m["layers"]["0"].update(nnz=500.0), "nnz must be from 0 to"),
        (lambda m: m["layers"]["0"].update(nnz=3), r"expected 3 entries, got \d+ in the dense array and its zeros"),
        (lambda m: m["layers"]["0"].update(nnz=660), r"layer '0' .* with 660 entries must not have \['0.zeros'\]"),
        (lambda m: m["layers"]["1"].update(nnz=239), r"layer '1' lacks the arrays \['1.zeros'\]"),
        (lambda m: m["layers"]["0"].update(shape=[33, 20]), r"'0.values' must be I8 \[33, 20\], got I8 \[20, 33\]"),
        (lambda m: m["layers"]["0"].update(dtype="float16"), r"'0.values' must be F16 \[20, 33\], got I8 \[20, 33\]"),
        (lambda m: m["layers"]["2"].update(in_model="dense"), "a layer that is dense in the model .* the form csr"),
        (lambda m: m["layers"]["1"].update(shape=[0, 2**31 - 1]), r"nnz must be from 0 to 0 \* 2147483647, got 240"),
        (lambda m: m["layers"]["0"].update(block="4x1"), "weight of layer '0' .* must have full blocks of 4x1"),
    ],
)
def test_a_manifest_that_does_not_fit(folder, change, message):
    edit_manifest(folder, change)
    refused(folder, message)


@pytest.mark.parametrize("in_features", [10**7, 2**31 - 1])
def test_a_weight_without_rows_takes_no_memory_for_its_columns(folder, in_features):
    def empty(arrays: dict[str, np.ndarray]) -> None:
        arrays.update({"1.values": np.zeros((0, in_features), np.int8), "1.scales": np.zeros(0, np.float32)})

    edit_manifest(folder, lambda m: m["layers"]["1"].update(shape=[0, in_features], nnz=0))
    forge(folder, empty)
    if in_features == 2**31 - 1:
        refused(folder, "far more than its files")
        return
    tracemalloc.start()
    weight = ModelFolder(folder).weight("1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (weight.shape, weight.nnz) == ((0, in_features), 0)
    assert peak < 2**20


def test_infinities_and_nan_are_kept_as_in_csr(folder):
    def spoil(arrays: dict[str, np.ndarray]) -> None:
        values = arrays["2.values"]
        entries = np.flatnonzero(values)
        values.reshape(-1)[entries[:2]] = np.nan, -np.inf

    forge(folder, spoil)
    found = load(folder, model=fresh())[2].to_csr().values[:2]
    assert np.isnan(found[0])
    assert found[1] == -np.inf
