"""Damaged files of other tools: `read_weights` refuses each in words, or gives tensors; it raises nothing else.

    python tests/fuzz/fuzz_importers.py [SECONDS [SEED]]

Archives (`.npz`, `.pt`) are also changed inside and packed again, since a changed byte of an archive seldom gets past
its checksums.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import scipy.sparse
import torch
from hypothesis import strategies as st
from mutations import byte_changes, json_changes, safetensors_changes
from onnx import numpy_helper
from running import arguments, run_for
from torch import nn
from torch.nn.utils import prune

from sparsekit.importers import read_weights

DATA = Path(__file__).parent.parent / "data"


def scipy_file(form: str) -> bytes:
    buffer = BytesIO()
    scipy.sparse.save_npz(buffer, scipy.sparse.random(8, 12, 0.3, form, np.float32, rng=0))
    return buffer.getvalue()


def torch_file(*, zipped: bool = True) -> bytes:
    model = nn.Linear(6, 4)
    prune.l1_unstructured(model, "weight", 0.5)
    buffer = BytesIO()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def onnx_file() -> bytes:
    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "onnx::MatMul_9")
    bias = numpy_helper.from_array(np.ones(3, np.float32), "0.bias")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_9"], ["y"], "/0/MatMul"),
        onnx.helper.make_node("Add", ["y", "0.bias"], ["z"], "/0/Add"),
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], [weight, bias])).SerializeToString()


@st.composite
def repacked(draw: st.DrawFn, archive: bytes) -> bytes:
    """An archive one of whose members is changed."""
    with zipfile.ZipFile(BytesIO(archive)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    chosen = draw(st.sampled_from(sorted(members)))
    members[chosen] = draw(byte_changes(members[chosen]))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


#: A tuple that holds itself twice, forty times.
BOMB = b")q\0" + b"h\0h\0\x86q\0" * 40
#: What pickles are made of, in small parts; put one after the other at random, some are pickles.
OPERATIONS = [b"}", b")", b"]", b"(", b"t", b"\x85", b"\x86", b"\x87", b"R", b"s", b"u", b"e", b"a", b"b", b"Q", b"N"]
OPERATIONS += [
    b"q\0",
    b"q\1",
    b"h\0",
    b"h\1",
    b"K\1",
    b"J\xff\xff\xff\x7f",
    b"\x81",
    b"X\1\0\0\0w",
    b"X\7\0\0\0storage",
]
OPERATIONS += [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"]
OPERATIONS += [
    b"ctorch\nSize\n",
    b"cbuiltins\nbytearray\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n",
    BOMB,
    BOMB + b"K\1s",
]


@st.composite
def pickled(draw: st.DrawFn, archive: bytes) -> bytes:
    """An archive of torch with a pickle of random operations, the first of them those of the right one."""
    with zipfile.ZipFile(BytesIO(archive)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    kept = members[name][: draw(st.one_of(st.just(3), st.integers(0, len(members[name]))))]  # 3: an empty dict
    members[name] = kept + b"".join(draw(st.lists(st.sampled_from(OPERATIONS), max_size=4))) + b"."
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for one, data in members.items():
            file.writestr(one, data)
    return buffer.getvalue()


NAMES = ["0.weight", "0.bias", "val_1", "onnx::MatMul_9", "0.weight_orig", "0.weight_mask", "x" * 50]
NODES = ["", "/0/MatMul", "/a" * 100_000]
SIZES = st.sampled_from([0, 1, 2, 3, 6, 2**20, 2**31, 2**62, -1, -(2**40)])
SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """An ONNX model of layers that name one another's tensors, as often as not a few thousand times."""
    names, few = st.sampled_from(NAMES), {"max_size": 4}
    graph = onnx.GraphProto()
    for _ in range(draw(st.integers(0, 4))):
        shapes = [[2, 3], [3], [2**15], [1, 2**15], [1] * 3000, [2**62] * 70]
        dims = draw(st.one_of(st.sampled_from(shapes), st.lists(SIZES, **few)))
        raw = bytes(4 * 2**15 if 2**15 in dims else 24)
        graph.initializer.add(
            name=draw(names), data_type=draw(st.sampled_from([1, 1, 7, 9, 99])), dims=dims, raw_data=raw
        )
    count = draw(st.sampled_from([1, 1, 4000]))
    for _ in range(draw(st.integers(0, 3))):
        operation, output = draw(st.sampled_from(["MatMul", "Gemm", "Add", "Mul", "Identity"])), draw(names)
        inputs, scope = [draw(names), draw(names)][: draw(st.integers(1, 2))], draw(st.sampled_from(["", "n"]))
        for number in range(count):
            node = graph.node.add(name="" if number else draw(st.sampled_from(NODES)), op_type=operation)
            node.input.extend(inputs)
            node.output.append(f"{output}{number or ''}")
            if scope:
                node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}{number}', 'linear']")
    keys = draw(st.lists(st.sampled_from(["weight", "bias"]), max_size=2, unique=True))
    targets = [f"PARAMETER target='n{number}.{key}'" for number in range(count) for key in keys]
    graph.metadata_props.add(key=SIGNATURE, value=", ".join(targets))
    return onnx.helper.make_model(graph).SerializeToString()


def cases() -> st.SearchStrategy[dict[str, bytes]]:
    """A file to read by its name; or the files of a folder."""
    archives = {f"{form}.npz": scipy_file(form) for form in ("csr", "csc", "coo", "bsr")} | {"model.pt": torch_file()}
    found = [byte_changes(onnx_file()).map(lambda data: {"model.onnx": data})]
    found += [graphs().map(lambda data: {"model.onnx": data})] * 5  # there is the most to find
    found += [pickled(torch_file()).map(lambda data: {"model.pt": data})] * 5
    found.append(byte_changes(torch_file(zipped=False)).map(lambda data: {"model.pt": data}))
    for name, data in archives.items():
        for change in (byte_changes, repacked):
            found.append(change(data).map(lambda data, name=name: {name: data}))
    for folder in sorted(path for path in DATA.iterdir() if path.is_dir()):
        weights, config = ((folder / name).read_bytes() for name in ("model.safetensors", "config.json"))
        for change in (byte_changes, safetensors_changes):
            found.append(change(weights).map(lambda data, c=config: {"model.safetensors": data, "config.json": c}))
        found.append(json_changes(config).map(lambda data, w=weights: {"model.safetensors": w, "config.json": data}))
    return st.one_of(found)


def check(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        for name, data in files.items():
            (Path(place) / name).write_bytes(data)
        with contextlib.suppress(ValueError, FileNotFoundError):
            read_weights(Path(place) / next(iter(files)) if len(files) == 1 else place)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    run_for(*arguments(), check, cases())
