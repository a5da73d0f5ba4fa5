"""Read the initializers of an ONNX file as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsekit.checkpoint.tensors import to_tensor
from sparsekit.extras import how_to_install
from sparsekit.folder.model_folder import memory_limit
from sparsekit.formats.dtypes import BY_NAME, BY_ONNX
from sparsekit.io.safetensors_file import entries_of
from sparsekit.io.untrusted import regular_file

#: Nodes whose weights are not floats, or that merge several weights.
_REFUSED = {
    "Attention": "was optimized for ONNX Runtime, which joins weights",
    "DequantizeLinear": "is quantized",
    "DynamicQuantizeMatMul": "is quantized",
    "MatMulInteger": "is quantized",
    "MatMulNBits": "is quantized",
    "QAttention": "is quantized",
    "QLinearMatMul": "is quantized",
}


def _texts(graph: Any) -> Iterator[Any]:
    """Everything in a graph that is read as text; protobuf returns bytes if it is not valid UTF-8."""
    for entry in graph.metadata_props:
        yield from (entry.key, entry.value)
    for tensor in graph.initializer:
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for entry in (*node.metadata_props, *node.attribute):
            yield from (entry.key, entry.value) if hasattr(entry, "key") else (entry.name,)


def _check_nodes(graph: Any) -> None:
    if not all(isinstance(text, str) for text in _texts(graph)) or not all(node.output for node in graph.node):
        raise ValueError("has nodes or tensors whose names are no text, or nodes without an output")
    for node in graph.node:
        if node.op_type in _REFUSED and not (node.op_type == "Attention" and not node.domain):
            raise ValueError(f"{_REFUSED[node.op_type]} (a node {node.op_type}); give the model as it was exported")
    if graph.sparse_initializer:
        raise ValueError("has sparse initializers, which are not read; expected dense ones with zeros")


def _check_sizes(graph: Any, path: Path) -> None:
    """Raise ValueError if initializers have far more bytes than the files: several may point to the same bytes."""
    external = [tensor for tensor in graph.initializer if tensor.data_location == 1]
    files = {path, *(_file_of(tensor, path.parent) for tensor in external)}
    limit = memory_limit(sum(file.stat().st_size for file in files))
    kinds = [(BY_ONNX.get(tensor.data_type, BY_NAME["float64"]), tensor.dims) for tensor in graph.initializer]
    needed = sum(entries_of(list(dims)) * dtype.nbytes for dtype, dims in kinds)
    if needed > limit:
        raise ValueError(f"has initializers of {needed} bytes, far more than its files")


def open_graph(path: Path) -> Any:
    """The graph of an ONNX file; external weights are not read yet.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: onnx is not installed.
        ValueError: the file is not an ONNX model, or its weights are quantized or merged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs onnx: {how_to_install('import')}") from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # the parser raises its own exception classes
        raise ValueError(f"{path} is no ONNX model: {error}") from error
    try:
        _check_nodes(graph)
        _check_sizes(graph, path)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    return graph


def _file_of(tensor: Any, folder: Path) -> Path:
    """The file in the folder that contains the bytes of a tensor."""
    locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
    return regular_file(folder, locations[0] if locations else "")


def _external(tensor: Any, folder: Path) -> bytes:
    """Bytes of a tensor that are stored in another file of the folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _file_of(tensor, folder)
    offset, size = int(entries.get("offset", 0)), path.stat().st_size
    length = int(entries.get("length", size - offset))
    if offset < 0 or length < 0 or offset + length > size:
        raise ValueError(f"bytes {offset} to {offset + length} are not in {path}, which has {size}")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def read_initializer(tensor: Any, folder: Path) -> torch.Tensor:
    """An initializer as a tensor with its own memory.

    Raises:
        ValueError: its dtype is unsupported, or its number of bytes does not fit its shape.
    """
    from onnx import numpy_helper

    dtype, shape = BY_ONNX.get(tensor.data_type), list(tensor.dims)
    if dtype is None:
        raise ValueError(f"{tensor.name!r} is of type {tensor.data_type}, which no weight has")
    try:
        if tensor.data_location == 1:
            raw = _external(tensor, folder)
        else:
            raw = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
        if len(raw) != entries_of(shape) * dtype.nbytes:
            raise ValueError(f"must have the bytes of {dtype.name} {shape}, got {len(raw)}")
    except Exception as error:  # numpy_helper raises several kinds
        raise ValueError(f"{tensor.name!r}: {error}") from error
    return to_tensor(tensor.name, np.frombuffer(raw, np.uint8).copy(), dtype, shape)


def initializers(graph: Any) -> dict[str, Any]:
    """Initializers under all their names: exporters store equal ones once, and alias the others through `Identity`."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and len(node.input) == len(node.output) == 1 and node.input[0] in found:
            found.setdefault(node.output[0], found[node.input[0]])
    return found
