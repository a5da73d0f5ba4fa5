"""Weights that compressed-tensors quantized: codes and scales as its own files have them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from sparsekit.cli import app
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.importers import convert_compressed_tensors, import_compressed_tensors, read_weights, rewritten_config
from sparsekit.importers.quantization_schemes import Scheme
from sparsekit.importers.quantized_layers import quantized_weight

DATA = Path(__file__).parents[1] / "data"
#: Written by compressed-tensors 0.9.4, see tests/data/make_quantized.py.
FOLDERS = {"pack-int4-groups": "int4", "pack-int4-rows": "int4", "pack-int8-rows": "int8", "int-quantized-24": "int8"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_read_as_their_tool_dequantizes_them(folder):
    path = DATA / f"{folder}-0.9.4"
    expected = load_file(path / "dense.safetensors")
    found = read_weights(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert (found["dense.weight"] == 0).float().mean() >= 0.5
    assert rewritten_config(path) == {"model_type": "bert", "hidden_size": 20}


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name.startswith("pack")])
def test_codes_and_scales_are_taken_over(folder):
    path = DATA / f"{folder}-0.9.4"
    stored = {name.removeprefix("dense."): tensor for name, tensor in load_file(path / "model.safetensors").items()}
    layer = {name: stored[name] for name in ("weight_packed", "weight_shape", "weight_scale")}
    bits = 4 if FOLDERS[folder] == "int4" else 8
    weight, others = quantized_weight(layer, [Scheme(bits, 128 if "groups" in folder else None)])
    csr = weight.to_csr()
    assert not others
    assert csr.dtype == FOLDERS[folder]
    assert csr.nnz == np.count_nonzero(weight.codes)
    dense = np.maximum(weight.codes, -127 if bits == 8 else -8)
    codes = np.zeros(csr.shape, np.int8)
    codes[np.repeat(np.arange(6), np.diff(csr.crow_indices)), csr.col_indices] = csr.values
    assert np.array_equal(codes, dense)
    scales = layer["weight_scale"].float().numpy()
    assert np.array_equal(csr.scales, scales[:, 0] if bits == 8 else np.broadcast_to(scales, (6, 2)))


def layout(columns: int = 10, scales: tuple[float, ...] = (0.5, 2.0)) -> dict[str, torch.Tensor]:
    """Byte for byte: the codes -8, -7, ... in row 0, 7 in all of row 1."""
    words = -(-columns // 8)
    packed = np.zeros((2, words * 4), np.uint8)
    for column in range(columns):
        for row, code in enumerate((column % 16, 15)):
            packed[row, column // 2] |= code << 4 * (column % 2)
    return {
        "weight_packed": torch.from_numpy(packed.view("<i4")),
        "weight_shape": torch.tensor([2, columns], dtype=torch.int32),
        "weight_scale": torch.tensor(scales)[:, None],
    }


def test_the_published_layout():
    weight, others = quantized_weight({**layout(), "bias": torch.ones(2)}, [Scheme(4, None)])
    assert weight.codes.tolist() == [[*range(-8, 2)], [7] * 10]
    assert weight.to_csr().nnz == 19
    expected = np.array([np.arange(-8, 2) * 0.5, [14.0] * 10], np.float32)
    assert np.array_equal(weight.to_csr().to_dense(), expected)
    assert np.array_equal(weight.to_dense().numpy(), expected)
    assert list(others) == ["bias"]


def test_groups_of_a_multiple_of_128():
    arrays = layout(600)
    arrays["weight_scale"] = torch.tensor([[0.5, 1.0, 2.0], [4.0, 8.0, 16.0]])
    weight, _ = quantized_weight(arrays, [Scheme(4, 256), Scheme(8, None)])
    csr = weight.to_csr()
    assert csr.scales.tolist() == [[0.5, 0.5, 1.0, 1.0, 2.0], [4.0, 4.0, 8.0, 8.0, 16.0]]
    assert np.array_equal(csr.to_dense(), weight.to_dense().numpy())


def test_what_stays_quantized_nowhere():
    arrays = layout(64)
    arrays["weight_scale"] = torch.ones(2, 2)
    weight, _ = quantized_weight(arrays, [Scheme(4, 32)])
    assert weight.to_dense().shape == (2, 64)
    with pytest.raises(ValueError, match="multiple of 128 input features, got scales of 32; use read_weights"):
        weight.to_csr()
    weight, _ = quantized_weight(layout(scales=(0.1, 1.0)), [Scheme(4, None)])
    with pytest.raises(ValueError, match="numbers that float16 holds"):
        weight.to_csr()


ATTACKS = [
    (lambda a: a.pop("weight_scale"), r"\['weight_scale'\] are missing"),
    (lambda a: a.pop("weight_shape"), r"\['weight_shape'\] are missing"),
    (lambda a: a.pop("weight_packed"), r"\['weight_packed'\] are missing"),
    (lambda a: a.update(weight=torch.ones(2, 10)), "packed and as it is"),
    (lambda a: a.update(weight_zero_point=torch.zeros(1, 1, dtype=torch.int32)), "only symmetric weights"),
    (lambda a: a.update(weight_g_idx=torch.zeros(10, dtype=torch.int32)), "only symmetric weights"),
    (lambda a: a.update(weight_shape=torch.tensor([2.0, 10.0])), "weight_shape must hold"),
    (lambda a: a.update(weight_shape=torch.tensor([2, -10])), "weight_shape must hold"),
    (lambda a: a.update(weight_shape=torch.tensor([2, 10, 1])), "weight_shape must hold"),
    (lambda a: a.update(weight_shape=torch.tensor([2, 2**40])), "weight_packed must be"),
    (lambda a: a.update(weight_shape=torch.tensor([2**62, 10])), "weight_packed must be"),
    (lambda a: a.update(weight_shape=torch.tensor([2, 9])), "end with bits of 0"),
    (lambda a: a.update(weight_shape=torch.tensor([2**40, 0]), weight_packed=torch.zeros(2**40, 0).int()),
     "weight_packed must be"),
    (lambda a: a.update(weight_packed=a["weight_packed"].long()), "must be torch.int32"),
    (lambda a: a["weight_packed"][0].fill_(-1), "end with bits of 0"),
    (lambda a: a.update(weight_scale=torch.ones(3, 1)), r"floats \[2, groups\]"),
    (lambda a: a.update(weight_scale=torch.ones(2, 0)), r"floats \[2, groups\]"),
    (lambda a: a.update(weight_scale=torch.ones(2, 2)), "groups of one group_size"),
    (lambda a: a.update(weight_scale=torch.ones(2, 1, 1)), r"floats \[2, groups\]"),
    (lambda a: a.update(weight_scale=torch.ones(2, 1).double()), r"floats \[2, groups\]"),
    (lambda a: a["weight_scale"].fill_(0.0), "positive and finite"),
    (lambda a: a["weight_scale"].fill_(-1.0), "positive and finite"),
    (lambda a: a["weight_scale"].fill_(float("nan")), "positive and finite"),
    (lambda a: a["weight_scale"].fill_(float("inf")), "positive and finite"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), ATTACKS)
def test_arrays_that_contradict_each_other(change, message):
    arrays = layout()
    change(arrays)
    with pytest.raises(ValueError, match=message):
        quantized_weight(arrays, [Scheme(4, None)])


def group(**changes) -> dict:
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "channel"} | changes
    return {"format": "pack-quantized", "config_groups": {"g": {"weights": weights}}}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (group(num_bits=3), "4 or 8 num_bits"),
        (group(num_bits=True), "4 or 8 num_bits"),
        (group(type="float"), "type 'int'"),
        (group(symmetric=False), "symmetric True"),
        (group(strategy="block"), "tensor, channel or group"),
        (group(group_size=0), "number of input features"),
        (group(group_size="128"), "number of input features"),
        ({**group(), "format": "marlin-24"}, "pack-quantized, int-quantized, got 'marlin-24'"),
        ({**group(), "format": ["pack-quantized"]}, "pack-quantized, int-quantized"),
        ({**group(), "kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme must be empty"),
        ({**group(), "transform_config": {"config_groups": {"R1": {}}}}, "transform_config must be empty"),
        ({**group(), "config_groups": [1]}, "config_groups must be an object"),
        ({"config_groups": {"g": {"weights": None}}}, "must say how weights are quantized"),
        ({"format": "int-quantized", "config_groups": {"g": {**group()["config_groups"]["g"],
          "input_activations": {"type": "int", "dynamic": False}}}}, "must be dynamic integers"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(tmp_path, section, message):
    save_file({f"layer.{name}": tensor for name, tensor in layout().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": group()}))
    assert import_compressed_tensors(tmp_path)["layer.weight"].shape == (2, 10)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": section}))
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path)


def test_files_without_their_configuration(tmp_path):
    save_file({f"layer.{name}": tensor for name, tensor in layout().items()}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match=r"no config\.json says how; read the whole folder"):
            read_weights(path)


def test_bit_masks_of_int8_become_a_folder(tmp_path):
    source, out = tmp_path / "theirs", tmp_path / "ours"
    shutil.copytree(DATA / "int-quantized-24-0.9.4", source)
    config = json.loads((source / "config.json").read_text())
    with pytest.raises(ValueError, match="architectures in config.json must hold the name of one class"):
        convert_compressed_tensors(source, out)
    assert not out.exists()
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    convert_compressed_tensors(source, out)
    folder = ModelFolder(out)
    entry, weight = folder.manifest.layers["dense"], folder.weight("dense")
    expected = load_file(source / "dense.safetensors")["dense.weight"].float().numpy()
    assert (entry.dtype, entry.nnz) == ("int8", np.count_nonzero(expected))
    np.testing.assert_allclose(weight.to_dense(), expected, rtol=2**-8)  # theirs are bfloat16
    assert set(folder.manifest.plain_arrays()) == {"dense.bias", "norm.weight", "norm.bias"}


def test_the_verb_takes_codes_over_and_no_options(tmp_path):
    source, out = tmp_path / "theirs", tmp_path / "ours"
    shutil.copytree(DATA / "int-quantized-24-0.9.4", source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    for option in (["--dtype", "int4"], ["--min-sparsity", "0"], ["--tokens", "4"], ["--dense"]):
        refused = CliRunner().invoke(app, ["convert", str(source), "--out", str(out), *option])
        assert refused.exit_code == 2
        assert "give --out alone" in " ".join(refused.output.split())
        assert not out.exists()
    shown = CliRunner().invoke(app, ["convert", str(source), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert ModelFolder(out).manifest.layers["dense"].dtype == "int8"
