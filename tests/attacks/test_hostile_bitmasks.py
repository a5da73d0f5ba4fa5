"""Damaged or malicious sparse weights with bitmasks and int4 values: each is refused with a clear error."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matrices import random_weight
from test_hostile_folders import edit_manifest, forge, refused_by_every_reader
from torch import nn

from sparsekit import SparseLinear, load, save, verify
from sparsekit.checkpoint import open_layers, weights

#: Layers in int4 and int8; the last byte of a row of the mask has seven bits that are no columns.
LAYERS = {"0": (20, 33), "1": (12, 33)}


def fresh() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(shape[1], shape[0], bias=False) for shape in LAYERS.values()))


@pytest.fixture
def folder(rng, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(weights, "smallest_form", lambda weight: "bitmask")
    model = fresh()
    for name, dtype in zip(LAYERS, ("int4", "int8"), strict=True):
        model[int(name)].weight.data = torch.from_numpy(random_weight(rng, LAYERS[name], 0.5))
        model[int(name)] = SparseLinear.from_linear(model[int(name)], dtype=dtype)
    while model[0].nnz % 2 == 0:  # an odd number of values leaves half a byte
        dense = torch.from_numpy(model[0].to_csr().to_dense())
        dense[np.unravel_index(dense.abs().argmax(), dense.shape)] = 0.0
        model[0] = SparseLinear.from_csr(model[0].to_csr().from_dense(dense.numpy()), dtype="int4")
    save(model, tmp_path / "model")
    return tmp_path / "model"


refused = partial(refused_by_every_reader, fresh)


def test_the_folder_is_good_before_anything_is_done_to_it(folder):
    forge(folder, lambda arrays: None)
    load(folder, model=fresh())
    assert verify(folder).passed


def flip(name: str, row: int, column: int, bit: int):
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name][row, column] ^= 1 << bit

    return change


def put(name: str, place: int, value: float):
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name].reshape(-1)[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip("0.mask", 3, 1, 2), "mask must have [0-9]+ bits set, one for each entry, got"),
        (flip("1.mask", 0, 0, 0), "mask must have [0-9]+ bits set, one for each entry, got"),
        (flip("0.mask", 19, 4, 1), "mask must have no bits beyond 33 columns"),
        (flip("1.mask", 0, 4, 7), "mask must have no bits beyond 33 columns"),
        (put("0.values", -1, 0xF1), "values of int4 must end with halves of 0"),
        (put("0.scales", 0, 0.0), "scales must be positive and finite"),
        (put("0.scales", 5, np.inf), "scales must be positive and finite"),
        (put("0.scales", 5, np.nan), "scales must be positive and finite"),
        (put("0.scales", 19, -1.0), "scales must be positive and finite"),
        (put("1.values", 0, -128), "int8 values must be from -127 to 127"),
    ],
)
def test_forged_arrays(folder, change, message):
    forge(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nnz": 1}, "array '0.values' must be U8 \\[1\\], got"),
        ({"form": "csr"}, "must have the arrays|lack|missing|crow_indices"),
        ({"shape": [20, 41]}, "array '0.mask' must be U8 \\[20, 6\\], got"),
        ({"dtype": "int8"}, "array '0"),
    ],
)
def test_a_manifest_that_contradicts_the_arrays(folder, changes, message):
    edit_manifest(folder, lambda manifest: manifest["layers"]["0"].update(changes))
    refused(folder, message)


def test_a_small_file_cannot_ask_for_all_memory(tmp_path):
    """int4 is packed dense, half a byte a weight, however few entries there are."""
    layer = SparseLinear.from_csr(SparseLinear(8, 8).to_csr(), dtype="int4")
    save(nn.Sequential(layer), tmp_path / "model")
    edit_manifest(tmp_path / "model", lambda manifest: manifest["layers"]["0"].update({"shape": [8, 10**9]}))
    with pytest.raises(ValueError, match=r"far more than its files|must be"):
        open_layers(tmp_path / "model")
