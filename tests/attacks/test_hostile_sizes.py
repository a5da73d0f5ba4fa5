"""Small files that request much time or memory: each is refused quickly, with a clear error."""

import json
import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsekit.importers import read_weights, torch_pickles
from sparsekit.io.safetensors_file import ArrayFile, entries_of
from sparsekit.io.untrusted import LARGEST_JSON, MOST_SIGNS, parse_json

#: JSON texts that make as many objects as their signs allow, of the kinds that take the most time or memory.
SHAPES: dict[str, Callable[[int], bytes]] = {
    "keys": lambda signs: b"{%b}" % b",".join(b'"%x":1e5' % i for i in range(signs // 2)),
    "lists": lambda signs: b"{%b}" % b",".join(b'"%x":[1e5]' % i for i in range(signs // 3)),
    "objects": lambda signs: b"[%b]" % b",".join(b'{"%x":1e5}' % i for i in range(signs // 3)),
    "empty objects": lambda signs: b"[%b]" % b",".join([b"{}"] * (signs // 2)),
    "strings": lambda signs: b"[%b]" % b",".join([b'"ab"'] * signs),
}


def padded(text: bytes, size: int) -> bytes:
    """The text with one more string, which makes it so long."""
    filler = b"a" * (size - len(text) - 8)
    return text[:-1] + b',"%b"' % filler + (b":0" if text[:1] == b"{" else b"") + text[-1:]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_json_takes_little_memory(shape):
    """An eighth of it, since memory grows with the text."""
    text = padded(SHAPES[shape](MOST_SIGNS // 8), LARGEST_JSON // 8)
    tracemalloc.start()
    parse_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + len(text) < 256 * 2**20 // 8
    with pytest.raises(ValueError, match=f"at most {MOST_SIGNS} commas, colons and brackets"):
        parse_json(SHAPES[shape](MOST_SIGNS + 10))


def test_json_whose_characters_python_holds_in_four_bytes():
    text = '["\N{GRINNING FACE}' + "a" * (LARGEST_JSON // 4)
    with pytest.raises(ValueError, match=f"at most {LARGEST_JSON // 4} bytes"):
        parse_json(text.encode())


def test_json_is_not_deep():
    assert parse_json(b"[" * 60 + b"]" * 60) is not None
    for text in (b"[" * 100 + b"]" * 100, b'{"a":' * 100 + b"0" + b"}" * 100, b'[{"a":' * 50 + b"0" + b"}]" * 50):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(text)


def test_a_model_of_a_thousand_layers_fits():
    """70B parameters in 1,000 layers of 10 tensors, the 7 linear ones in int8: 4 arrays and an entry each."""
    names = [f"model.layers.{i}.self_attn.projection_{j}" for i in range(1000) for j in range(7)]
    norms = [f"model.layers.{i}.norm_{j}.weight" for i in range(1000) for j in range(3)]
    array = {"dtype": "F32", "shape": [28672, 8192], "sha256": "a" * 64}
    arrays = [f"{name}.{part}" for name in names for part in ("crow_indices", "col_indices", "values", "scales")]
    layer = {"shape": [28672, 8192], "dtype": "int8", "nnz": 28672 * 8192, "form": "csr", "in_model": "sparse"}
    layer |= {"block": "1x1", "activation": None}
    check = {
        "absolute": 1.2345678901234567e-05,
        "relative": 1.2345678901234567e-05,
        "tolerance": 1.2345678901234567e-05,
    }
    manifest = {
        "arrays": dict.fromkeys([*arrays, *norms], array),
        "layers": dict.fromkeys(names, layer),
        "verification": {"layers": dict.fromkeys(names, check)},
    }
    text = json.dumps(manifest, indent=2).encode()
    assert 2 * len(text) < LARGEST_JSON
    assert parse_json(text) == manifest


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1] * 100_000, "at most 64 sizes"),
        ([2**62] * 100_000, "at most 64 sizes"),
        ([2**62] * 64, "fewer than 2.63 entries"),
        ([2**32, 2**32, 0], "fewer than 2.63 entries"),
        ([2**63], "from 0 to 2.63 - 1"),
        ([-1, -1], "from 0 to 2.63 - 1"),
        ([True], "from 0 to 2.63 - 1"),
        ("1", "from 0 to 2.63 - 1"),
    ],
)
def test_shapes(tmp_path, shape, message):
    with pytest.raises(ValueError, match=message):
        entries_of(shape)
    path = tmp_path / "model.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match=message) as raised:
        ArrayFile(path)
    assert len(str(raised.value)) < 1000


def test_shapes_that_are_some():
    assert [entries_of(shape) for shape in ([], [3], [2, 5], [0], [2**62, 0], [1] * 64)] == [1, 3, 10, 0, 0, 1]


def onnx_model(path: Path, nodes: list, arrays: dict[str, np.ndarray], signature: str = "") -> None:
    onnx = pytest.importorskip("onnx")
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "g", [], [], initializers)
    if signature:
        graph.metadata_props.add(key="pkg.torch.export.ExportedProgram.graph_signature", value=signature)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def node(op_type: str, inputs: list[str], output: str, scope: str = "", name: str = ""):
    onnx = pytest.importorskip("onnx")
    made = onnx.helper.make_node(op_type, inputs, [output], name)
    if scope:
        made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}', 'linear']")
    return made


def test_onnx_shapes(tmp_path):
    path = tmp_path / "model.onnx"
    pytest.importorskip("onnx")
    import onnx

    for dims, message in (([1] * 100_000, "64 sizes"), ([2**62] * 50, "2.63 entries"), ([-(2**40), 2], "64 sizes")):
        graph = onnx.helper.make_graph([], "g", [], [], [onnx.TensorProto(name="x.weight", data_type=1, dims=dims)])
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        with pytest.raises(ValueError, match=message):
            read_weights(path)


def test_one_onnx_tensor_under_many_names_is_there_once(tmp_path):
    """Zero biases and norms that the exporter merged: the signature may name any number of them."""
    layers = [f"l{i}" for i in range(200)]
    nodes = [node("MatMul", ["x", "val_1"], f"y{i}", layer) for i, layer in enumerate(layers)]
    nodes += [node("Mul", ["x", "val_2"], f"z{i}", f"n{i}") for i in range(200)]
    targets = [f"{layer}.{key}" for layer in layers for key in ("weight", "bias")] + [
        f"n{i}.weight" for i in range(200)
    ]
    signature = ", ".join(f"PARAMETER target='{target}'" for target in targets)
    arrays = {"val_1": np.ones((1, 100_000), np.float32), "val_2": np.ones(100_000, np.float32)}
    onnx_model(tmp_path / "model.onnx", nodes, arrays, signature)
    found = read_weights(tmp_path / "model.onnx")
    assert len(found) == 600
    assert found["l7.bias"].shape == (100_000,)
    assert len({tensor.data_ptr() for tensor in found.values()}) == 3


def test_onnx_tensors_that_are_equal_are_compared_once(tmp_path, monkeypatch):
    """Several equal tensors may lead to one name, any number of times."""
    arrays = {"val_1": np.ones((300, 300), np.float32), "val_2": np.ones((300, 300), np.float32)}
    arrays["val_1"][0, 0], arrays["val_2"][0, 0] = 0.0, -0.0
    nodes = [node("MatMul", ["x", f"val_{1 + i % 2}"], f"y{i}", "layer") for i in range(1000)]
    onnx_model(tmp_path / "model.onnx", nodes, arrays)
    compared = []
    monkeypatch.setattr(torch, "equal", lambda *pair: compared.append(pair) or True)
    assert read_weights(tmp_path / "model.onnx")["layer.weight"].shape == (300, 300)
    assert len(compared) < 10
    arrays["val_2"][5, 5] = 2.0
    onnx_model(tmp_path / "model.onnx", nodes, arrays)
    with pytest.raises(ValueError, match="two different weights lead to 'layer.weight'"):
        read_weights(tmp_path / "model.onnx")


def test_long_names_of_onnx_nodes(tmp_path):
    name = "/" + "a/" * 500_000 + "MatMul"
    onnx_model(
        tmp_path / "model.onnx",
        [node("MatMul", ["x", "val_1"], "y", name=name)],
        {"val_1": np.ones((2, 3), np.float32)},
    )
    assert [len(key) for key in read_weights(tmp_path / "model.onnx")] == [500_000 * 2 + 6]


def test_many_masks_of_one_tensor(tmp_path):
    """Each would get memory of its own when its mask is multiplied in."""
    weight = torch.ones(2**16)
    state = {f"{i}.weight_{part}": weight for i in range(100) for part in ("orig", "mask")}
    torch.save(state, tmp_path / "model.pt")
    assert len(read_weights(tmp_path / "model.pt")) == 100
    torch.save({f"{i}.weight": weight for i in range(1000)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="far more than it holds: many are one under other names"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_many_names_of_one_sparse_tensor(tmp_path):
    sparse = torch.sparse_csr_tensor(
        torch.zeros(101).long(), torch.zeros(0).long(), torch.zeros(0), size=(100, 10_000), check_invariants=True
    )
    torch.save({str(i): sparse for i in range(500)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="far more than the file's bytes"):
        read_weights(tmp_path / "model.pt")


def archive_with(pickle: bytes) -> bytes:
    """A file of `torch.save` with another pickle in it."""
    whole, buffer = BytesIO(), BytesIO()
    torch.save({"w": torch.arange(4.0)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, pickle if name.endswith("data.pkl") else source.read(name))
    return buffer.getvalue()


DOUBLING = b"".join(b"q%ch%ch%c\x86" % (i, i, i) for i in range(60))
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00AX\x03\x00\x00\x00cpuK\x04tQ"


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (b"})" + DOUBLING + b"K\x01s.", "objects, one inside of the other"),
        (
            b"}X\x01\x00\x00\x00acbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85Rs.",
            "made without 'builtins bytearray'",
        ),
        (b"}c__builtin__\nbytearray\nK\x01s.", "made without '__builtin__ bytearray'"),
        (b"}c_codecs\nencode\nK\x01s.", "made without '_codecs encode'"),
        (b"}ctorch._utils\n_rebuild_qtensor\nK\x01s.", "made without"),
        (b"}" + STORAGE + b"K\x01s.", "storages must be numbered, got 'A'"),
        (b"}ctorch.storage\nTypedStorage\n(J\0\xca\x9a;tRs.", "storages must be in the file, its pickle makes a new"),
        (b"]" + b"Na" * 600 + b".", "more than 1000 operations"),
        (b"}s.", "takes more than there is"),
        (b"h\x07.", "must hold a state dict"),
        (b"\x93.", "must hold a state dict"),
        (b"", "must hold a state dict"),
    ],
)
def test_pickles(tmp_path, monkeypatch, pickle, message):
    monkeypatch.setattr(torch_pickles, "_MOST_OPERATIONS", 1000)
    path = tmp_path / "model.pt"
    for whole in (archive_with(b"\x80\x02" + pickle), b"\x80\x02" + pickle):
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=message):
            read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_of_all_kinds_pass(tmp_path, zipped):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Embedding(5, 4).half())
    optimizer = torch.optim.AdamW(model.parameters())
    model[1](model[0](torch.randn(5, 4))).sum().backward()
    optimizer.step()
    state = model.state_dict() | {"parameter": torch.nn.Parameter(torch.ones(3)), "flags": torch.ones(2).bool()}
    rest = {"epoch": 3, "lr": 1e-3, "none": None, "pair": (1, 2), "big": 10**30, "rng": torch.get_rng_state()}
    rest |= {"dtype": torch.float32, "size": torch.Size([1, 2]), "device": torch.device("cpu"), "yes": True}
    for value in (state, {"model": state, "optimizer": optimizer.state_dict(), **rest}):
        torch.save(value, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
        assert read_weights(tmp_path / "model.pt").keys() == state.keys()
