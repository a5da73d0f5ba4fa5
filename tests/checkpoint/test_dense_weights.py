"""Weights with few zeros are dense arrays in a folder, and come back as the sparse weights that they were."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from format_reader import read_layers
from matrices import blocked_weight
from tiny_encoders import encoder, hidden_states, sequences
from torch import nn

from sparsekit import CSR, SparseLinear, convert, load, prune, save
from sparsekit.checkpoint import open_layers, weights
from sparsekit.engine import compile_model
from sparsekit.formats.dtypes import WEIGHT_DTYPES

SHAPE = (62, 300)
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def fresh(shape: tuple[int, int] = SHAPE) -> nn.Sequential:
    return nn.Sequential(nn.Linear(shape[1], shape[0]))


def layer_of(weight: np.ndarray, dtype: str, block: str) -> SparseLinear:
    linear = nn.Linear(*weight.shape[::-1])
    linear.weight.data = torch.from_numpy(weight)
    return SparseLinear.from_linear(linear, dtype=dtype, block=block)


def entry_of(folder: Path) -> dict:
    return json.loads((folder / "sparsekit.json").read_text())["layers"]["0"]


def stored_bytes(folder: Path) -> int:
    """Bytes of the arrays of the weight."""
    arrays = json.loads((folder / "sparsekit.json").read_text())["arrays"]
    sizes = {"F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "U16": 2, "U32": 4}
    return sum(sizes[one["dtype"]] * int(np.prod(one["shape"])) for name, one in arrays.items() if name != "0.bias")


def comes_back(layer: SparseLinear, folder: Path) -> None:
    """The folder gives back the layer bit for bit, with torch, without it, and by the specification."""
    shape = layer.out_features, layer.in_features
    save(nn.Sequential(layer), folder)
    loaded = load(folder, model=fresh(shape))[0]
    assert torch.equal(loaded.packed, layer.packed)
    assert np.array_equal(open_layers(folder)["0"].packed, layer.packed.numpy())
    x = torch.randn(5, shape[1], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(x), layer(x))
    csr = layer.to_csr()
    weight, stored = read_layers(folder)["0"]
    assert np.array_equal(weight.view(np.uint32)[stored], csr.float_values().view(np.uint32))
    assert np.array_equal(np.diff(csr.crow_indices), stored.sum(1))
    assert np.array_equal(csr.col_indices, np.nonzero(stored)[1])


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("block", ["1x1", "4x1"])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_the_smaller_form_is_taken_and_gives_back_the_layer(rng, tmp_path, dtype, block, sparsity):
    weight = blocked_weight(rng, SHAPE, sparsity) if block == "4x1" else rng.standard_normal(SHAPE, dtype=np.float32)
    weight[rng.random(SHAPE) < (sparsity if block == "1x1" else 0.0)] = 0.0
    layer = layer_of(weight, dtype, block)
    comes_back(layer, tmp_path / "model")
    csr = layer.to_csr()
    entry = entry_of(tmp_path / "model")
    sizes = bytes_by_form(csr)
    assert entry["form"] == min(sizes, key=sizes.get)
    assert stored_bytes(tmp_path / "model") == sizes[entry["form"]] + scale_bytes(csr)
    assert entry["nnz"] == csr.nnz
    if sparsity in (0.0, 0.5) and dtype != "int4":
        assert entry["form"] == ("dense" if sparsity == 0.0 else "bitmask")


def scale_bytes(csr: CSR) -> int:
    return {"int8": 4 * SHAPE[0], "int4": 2 * SHAPE[0] * -(-SHAPE[1] // 128)}.get(csr.dtype, 0)


def bytes_by_form(csr: CSR) -> dict[str, int]:
    """The first one counts where several are as many."""
    size = SHAPE[0] * SHAPE[1]
    zeros = 0 if csr.nnz == size else 4 * np.count_nonzero(csr.float_values() == 0)
    of_entries, of_places = (-(-count // 2) if csr.dtype == "int4" else count * _BYTES[csr.dtype]
                             for count in (csr.nnz, size))  # fmt: skip
    return {
        "csr": of_entries + 2 * csr.nnz + 4 * (SHAPE[0] + 1),
        "bitmask": of_entries + SHAPE[0] * -(-SHAPE[1] // 8),
        "dense": of_places + zeros,
    }


def test_int8_at_no_sparsity_takes_a_byte_a_weight(rng, tmp_path):
    layer = layer_of(rng.standard_normal(SHAPE, dtype=np.float32), "int8", "1x1")
    assert (layer.to_csr().values == 0).any()
    save(nn.Sequential(layer), tmp_path / "model")
    assert stored_bytes(tmp_path / "model") == SHAPE[0] * SHAPE[1] + 4 * SHAPE[0]


@pytest.mark.parametrize("dtype", [dtype for dtype in WEIGHT_DTYPES if dtype != "int4"])
def test_entries_that_are_zero_stay_entries(rng, tmp_path, dtype):
    """Also those of the other sign: an input of infinity tells an entry of zero from a place without one."""
    weight = CSR.from_dense(rng.uniform(0.5, 1.0, SHAPE).astype(np.float32) * (rng.random(SHAPE) > 0.1))
    values = weight.values.copy()
    values[::50], values[7::50] = 0.0, -0.0
    weight = CSR(weight.crow_indices, weight.col_indices, values, SHAPE)
    layer = SparseLinear.from_csr(weight, torch.zeros(SHAPE[0]), dtype=dtype, block="1x1")
    comes_back(layer, tmp_path / "model")
    assert layer.nnz == weight.nnz
    assert entry_of(tmp_path / "model") == {
        "shape": list(SHAPE),
        "dtype": dtype,
        "nnz": weight.nnz,
        "form": "bitmask",
        "in_model": "sparse",
        "block": "1x1",
        "activation": None,
    }


def test_zeros_that_fill_up_blocks_stay_entries(rng, tmp_path):
    weight = rng.standard_normal(SHAPE, dtype=np.float32)
    weight[rng.random(SHAPE) < 0.02] = 0.0
    weight[:4, ::3] = 0.0  # blocks that are not there
    layer = layer_of(weight, "bfloat16", "4x1")
    assert layer.nnz > np.count_nonzero(weight)
    assert layer.nnz < weight.size
    comes_back(layer, tmp_path / "model")
    assert entry_of(tmp_path / "model")["form"] == "dense"
    assert load(tmp_path / "model", model=fresh())[0].block == "4x1"


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1)])
def test_weights_without_entries(tmp_path, shape):
    layer = layer_of(np.zeros(shape, np.float32), "float32", "1x1")
    save(nn.Sequential(layer), tmp_path / "model")
    assert torch.equal(load(tmp_path / "model", model=fresh(shape))[0].packed, layer.packed)


def test_values_that_are_not_finite_or_tiny(rng, tmp_path):
    weight = rng.standard_normal(SHAPE, dtype=np.float32)
    weight[0, :4] = np.inf, -np.inf, np.nan, 1e-45
    weight[1, ::2] = 0.0
    layer = layer_of(weight, "float32", "1x1")
    save(nn.Sequential(layer), tmp_path / "model")
    assert entry_of(tmp_path / "model")["form"] == "dense"
    assert torch.equal(load(tmp_path / "model", model=fresh())[0].packed, layer.packed)


def converted(dtype: str, family: str = "bert") -> nn.Module:
    model = encoder(family)
    prune(model, 0.2, targets=["re:.*layers?.1"])
    return convert(model, min_sparsity=0.0, dtype=dtype, embeddings="int8" if dtype == "int8" else "float32")


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_engine_compiles_the_same_file_from_both_forms(tmp_path, monkeypatch, family, dtype):
    model = converted(dtype, family)
    save(model, tmp_path / "model")
    monkeypatch.setattr(weights, "smallest_form", lambda weight: "csr")
    save(model, tmp_path / "csr")
    forms = {}
    for folder in ("model", "csr"):
        layers = json.loads((tmp_path / folder / "sparsekit.json").read_text())["layers"].values()
        forms[folder] = {layer["form"] for layer in layers}
    assert forms["csr"] == {"csr"}
    assert "dense" in forms["model"]
    assert np.array_equal(compile_model(tmp_path / "model"), compile_model(tmp_path / "csr"))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_transformers_opens_and_saves_it(tmp_path, dtype):
    model = converted(dtype)
    ids = sequences((9,))[0]
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    save(model, tmp_path / "model", verify_inputs=inputs)
    opened = transformers.AutoModel.from_pretrained(tmp_path / "model")
    assert np.array_equal(hidden_states(opened, ids), hidden_states(model, ids))
    save(load(tmp_path / "model"), tmp_path / "again", max_shard_size=3000)
    save(opened, tmp_path / "opened", verify_inputs=inputs)
    for path in (tmp_path / "model").glob("*.safetensors"):
        assert (tmp_path / "opened" / path.name).read_bytes() == path.read_bytes()
    assert np.array_equal(hidden_states(load(tmp_path / "again"), ids), hidden_states(model, ids))
