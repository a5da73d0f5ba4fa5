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


def torch_file() -> bytes:
    model = nn.Linear(6, 4)
    prune.l1_unstructured(model, "weight", 0.5)
    buffer = BytesIO()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, buffer)
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


def cases() -> st.SearchStrategy[dict[str, bytes]]:
    """A file to read by its name; or the files of a folder."""
    archives = {f"{form}.npz": scipy_file(form) for form in ("csr", "csc", "coo", "bsr")} | {"model.pt": torch_file()}
    found = [byte_changes(onnx_file()).map(lambda data: {"model.onnx": data})]
    for name, data in archives.items():
        for change in (byte_changes, repacked):
            found.append(change(data).map(lambda data, name=name: {name: data}))
    for folder in sorted(DATA.glob("sparse-*")):
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
