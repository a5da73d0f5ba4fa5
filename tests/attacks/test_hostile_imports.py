"""Damaged or malicious files of other tools: each is refused with a clear error, and none of their code is run."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparsekit.importers import import_onnx, import_scipy, read_weights


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_weights(path)


def bitmask() -> dict[str, torch.Tensor]:
    return {
        "layer.shape": torch.tensor([3, 10]),
        "layer.compressed": torch.tensor([1.0, 2.0, 3.0]),
        "layer.bitmask": torch.tensor([[1, 1], [0, 0], [0, 2]], dtype=torch.uint8),
        "layer.row_offsets": torch.tensor([0, 2, 2]),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("layer.shape"), r"bit mask of 'layer.weight': the arrays \['shape'\] are missing"),
        (lambda a: a.pop("layer.compressed"), r"the arrays \['compressed'\] are missing"),
        (lambda a: a.pop("layer.row_offsets"), r"the arrays \['row_offsets'\] are missing"),
        (lambda a: a.update({"layer.shape": torch.tensor([2**40, 2**40])}), "a shape must have fewer than 2.63"),
        (lambda a: a.update({"layer.shape": torch.tensor([-3, 10])}), "a shape must have at most 64 sizes"),
        (lambda a: a.update({"layer.shape": torch.zeros(0, dtype=torch.int64)}), "shape must hold the int64 sizes"),
        (lambda a: a.update({"layer.shape": torch.tensor([3.0, 10.0])}), "shape must hold the int64 sizes"),
        (
            lambda a: a.update({"layer.shape": torch.tensor([2**30, 10])}),
            r"must be torch.uint8 \[1073741824, 2",
        ),
        (lambda a: a.update({"layer.shape": torch.tensor([3, 17])}), r"bitmask must be torch.uint8 \[3, 3\]"),
        (lambda a: a.update({"layer.bitmask": a["layer.bitmask"].int()}), "bitmask must be torch.uint8"),
        (lambda a: a["layer.bitmask"].fill_(255), "one bit for each of the 3 values, got 48"),
        (lambda a: a["layer.bitmask"][0].copy_(torch.tensor([1, 4])), "one bit for each of the 3 values"),
        (lambda a: a["layer.bitmask"].zero_(), "one bit for each of the 3 values, got 0"),
        (lambda a: a["layer.row_offsets"].fill_(2**62), "row_offsets must say where the rows begin"),
        (lambda a: a.update({"layer.row_offsets": torch.tensor([0, 2])}), r"row_offsets must be torch.int64 \[3\]"),
        (lambda a: a.update({"layer.weight": torch.ones(3, 10)}), "must be there once, got it dense and as a bit mask"),
    ],
)
def test_bit_masks(tmp_path, change, message):
    arrays = bitmask()
    save_file(arrays, tmp_path / "model.safetensors")
    assert read_weights(tmp_path)["layer.weight"].count_nonzero() == 3
    change(arrays)
    save_file(arrays, tmp_path / "model.safetensors")
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"quant_method": "gptq"}, "these are quantized otherwise \\('gptq'\\); dequantize"),
        ({"config_groups": {"group_0": {}}, "format": "int-quantized"}, "must say how weights are quantized"),
        ({"sparsity_config": {"format": "run-code"}}, "must have a format among dense, sparse-bitmask"),
        ({"sparsity_config": {"format": ["dense"]}}, "must have a format among"),
        (["dense"], "quantization_config must be an object"),
    ],
)
def test_configurations(tmp_path, section, message):
    save_file(bitmask(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": section}))
    refused(tmp_path, message)


def test_indexes_that_name_other_files(tmp_path):
    save_file(bitmask(), tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    good = dict.fromkeys(bitmask(), "a.safetensors")
    for where, message in (
        ({"x": "../a.safetensors"}, "expected a plain file name"),
        ({"x": "config.json"}, "weight_map from tensors to .safetensors files"),
        ({"x": 3}, "weight_map from tensors"),
        ([], "weight_map from tensors"),
        ({**good, "x": "a.safetensors"}, r"they differ in \['x'\]"),
        ({**good, "x": "b.safetensors"}, "is missing or cannot be opened"),
    ):
        index.write_text(json.dumps({"weight_map": where}))
        refused(tmp_path, message)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-was-done",)


def test_pickles_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(2), "x": Harmful()}, path)
    refused(path, "must hold a state dict, .* files with classes or code in them are not read")
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    refused(path, "files with classes or code in them are not read")
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, "files with classes or code in them are not read")
    array = np.empty(1, object)
    array[0] = Harmful()
    np.savez(tmp_path / "w.npz", format=np.array(b"csr"), shape=np.array([1, 1]), data=array)
    refused(tmp_path / "w.npz", "data.npy must hold object")
    assert not (tmp_path / "harm-was-done").exists()


def test_state_dicts_that_are_none(tmp_path):
    path = tmp_path / "model.pt"
    for value, message in (
        ({"epoch": 3}, "must hold a state dict, or one under state_dict, model_state_dict, model"),
        ({}, "must hold a state dict"),
        ([torch.ones(2)], "must hold a state dict"),
        ({1: torch.ones(2)}, "names of tensors must be strings"),
        ({"w": torch.ones(1).expand(2**40)}, "'w': a tensor of shape .* has more entries than the file holds"),
        ({"w": torch.ones(2, 2).to_sparse()}, "expected a plain dense tensor"),
        ({"w": torch.ones(2, device="meta")}, "expected a plain dense tensor"),
    ):
        torch.save(value, path)
        refused(path, message)
    for damaged in (b"PK\3\4 and no more", path.read_bytes()[:-30], path.read_bytes()[:-30] + b"\0" * 8):
        path.write_bytes(damaged)
        refused(path, "must hold a state dict")
    around: dict[str, object] = {}
    around["state_dict"] = around
    torch.save(around, path)
    refused(path, "must hold a state dict, or one under")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_csr_tensors_are_checked(tmp_path):
    """By torch itself from 2.14 on, which says so in its words."""
    path = tmp_path / "model.pt"
    for crow, col, size, message in (
        ([0, 1, 2], [0, 7], (2, 4), r"'w': col_indices must be in \[0, in_features\)|0 <= col_indices < ncols"),
        ([0, 5, 2], [0, 1], (2, 4), "'w': crow_indices must never fall|0 <= crow_indices.*is not satisfied"),
        ([0, 1, 2], [0, 1], (2, 2**31 - 1), "far more than the file's bytes"),
    ):
        arrays = torch.tensor(crow), torch.tensor(col), torch.ones(2)
        torch.save({"w": torch.sparse_csr_tensor(*arrays, size=size, check_invariants=False)}, path)
        refused(path, message)


def write_npz(path: Path, change: Callable[[dict], object], compression: int = zipfile.ZIP_STORED) -> None:
    """A CSC matrix of [4, 3], changed."""
    arrays = {
        "format": np.array(b"csc"),
        "shape": np.array([4, 3]),
        "indptr": np.array([0, 1, 2, 3]),
        "indices": np.array([0, 3, 1]),
        "data": np.ones(3, np.float32),
    }
    change(arrays)
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, array in arrays.items():
            if isinstance(array, bytes):
                file.writestr(f"{name}.npy", array)
                continue
            buffer = BytesIO()
            np.save(buffer, array)
            file.writestr(f"{name}.npy", buffer.getvalue())


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(indices=np.array([0, 2**40, 1])), "holds no sparse weight"),
        (lambda a: a.update(indices=np.array([0, -1, 1])), "holds no sparse weight"),
        (lambda a: a.update(indptr=np.array([0, 2**40, 2, 3])), "holds no sparse weight"),
        (lambda a: a.update(indptr=np.array([0, 3, 1, 3])), "holds no sparse weight"),
        (lambda a: a.update(indptr=np.array([0, 3])), "holds no sparse weight"),
        (lambda a: a.update(indptr=np.array([0, 2, 3, -(2**31)], np.int32)), "indptr must never fall"),
        (lambda a: a.update(indptr=np.array([0, 2**30, 2**30, 0], np.int32)), "indptr must never fall"),
        (lambda a: a.update(indptr=np.array([0, 2**31 - 1, -(2**31), 3], np.int32)), "indptr must never fall"),
        (lambda a: a.update(shape=np.array([2**40, 3])), "rows, far more than its bytes can fill"),
        (lambda a: a.update(format=np.array(b"dok")), "holds no sparse weight"),
        (lambda a: a.update(format=np.array(b"os.system")), "holds no sparse weight"),
        (lambda a: a.pop("data"), "expected the arrays of scipy.sparse.save_npz"),
        (lambda a: a.update(data=np.ones(3, np.complex64)), "expected a matrix of floats"),
        (lambda a: a.update(data=header("(1099511627776,)")), r"must hold float32 \[1099511627776\]"),
        (lambda a: a.update(data=b"\x93NUMPY\x09\x00"), "header of version"),
        (lambda a: a.update(data=b"not numpy"), "holds no sparse weight"),
        (lambda a: a.update(data=header("(3,")), "holds no sparse weight"),
    ],
)
def test_matrices_of_scipy(tmp_path, change, message):
    pytest.importorskip("scipy.sparse")
    path = tmp_path / "w.npz"
    write_npz(path, lambda arrays: None)
    assert import_scipy(path)["w.weight"].nnz == 3
    write_npz(path, change)
    refused(path, message)


def test_archives_that_unpack_to_all_memory(tmp_path):
    path = tmp_path / "w.npz"
    write_npz(path, lambda arrays: arrays.update(data=np.zeros(2**26, np.float32)), zipfile.ZIP_DEFLATED)
    refused(path, "unpacks to .* bytes, far more than its")
    path.write_bytes(b"no archive")
    refused(path, "holds no sparse weight")
    write_npz(path, lambda arrays: arrays.update(shape=np.array([4, 2**30]), format=np.array(b"csr"),
                                                 indptr=np.array([0, 1, 2, 3, 3])))  # fmt: skip
    refused(path, "bytes dense, far more than its files; read it with import_scipy")
    assert import_scipy(path)["w.weight"].shape == (4, 2**30)


def onnx_model(path: Path, change: Callable[[object], object]) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "0.weight")
    node = onnx.helper.make_node("MatMul", ["x", "0.weight"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], [weight])
    change(graph)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def _external(graph, **entries: str) -> None:
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.initializer[0].dims.__setitem__(0, 2**40), "far more than its files"),
        (lambda g: g.initializer[0].dims.__setitem__(0, 3), "must have the bytes of float32"),
        (lambda g: g.initializer[0].dims.__setitem__(0, -2), "a shape must have at most 64 sizes"),
        (lambda g: setattr(g.initializer[0], "data_type", 8), "is of type 8, which no weight has"),
        (lambda g: setattr(g.initializer[0], "data_type", 99), "is of type 99, which no weight has"),
        (lambda g: _external(g, location="../secret"), "expected a plain file name"),
        (lambda g: _external(g, location="/etc/passwd"), "expected a plain file name"),
        (lambda g: _external(g), "expected a plain file name"),
        (lambda g: _external(g, location="link"), "is a link out of the folder"),
        (lambda g: _external(g, location="data", offset="8"), "must have the bytes of"),
        (lambda g: _external(g, location="data", offset="-8"), "are not in"),
        (lambda g: _external(g, location="data", offset="x"), "invalid literal"),
        (lambda g: _external(g, location="data", length="99999999999"), "are not in"),
        (lambda g: setattr(g.node[0], "op_type", "MatMulInteger"), r"is quantized \(a node MatMulInteger\)"),
        (lambda g: g.sparse_initializer.add(), "has sparse initializers"),
        (lambda g: g.node[0].ClearField("output"), "nodes without an output"),
    ],
)
def test_onnx_models(tmp_path, change, message):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.onnx"
    onnx_model(path, lambda graph: None)
    assert list(import_onnx(path)) == ["0.weight"]
    (tmp_path / "secret").write_bytes(bytes(24))
    (tmp_path / "folder" / "data").write_bytes(bytes(24))
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    onnx_model(path, change)
    refused(path, message)
    onnx_model(path, lambda graph: None)
    path.write_bytes(path.read_bytes().replace(b"0.weight", b"\xff.weight"))
    refused(path, "whose names are no text")
    path.write_bytes(b"\xff" * 50)
    refused(path, "is no ONNX model")
