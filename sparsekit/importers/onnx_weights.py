"""Import the weights of ONNX models under their PyTorch names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsekit.importers.onnx_file import open_graph, read_initializer
from sparsekit.importers.onnx_names import ParameterNames, is_turned


class _Tensors:
    """Initializers as tensors; each is read once, however often it is named or compared."""

    def __init__(self, names: ParameterNames, folder: Path) -> None:
        self._names = names
        self._folder = folder
        self._made: dict[tuple[int, bool], torch.Tensor] = {}
        self._digests: dict[int, bytes] = {}
        self._zeros: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def read(self, name: str, *, turned: bool = False) -> torch.Tensor:
        """The tensor with this name in the graph."""
        tensor = self._names.tensors[name]
        key = id(tensor), turned
        if key not in self._made:
            dense = read_initializer(tensor, self._folder)
            self._made[key] = dense.T.contiguous() if turned else dense
        return self._made[key]

    def are_equal(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """Whether two tensors that `read` returned are equal."""
        if one is other or one.dtype != other.dtype or one.shape != other.shape:
            return one is other
        return self._digest(one) == self._digest(other)

    def zeros(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """Zeros, allocated once per size."""
        return self._zeros.setdefault((size, dtype), torch.zeros(size, dtype=dtype))

    def _digest(self, tensor: torch.Tensor) -> bytes:
        if id(tensor) not in self._digests:
            plain = tensor if tensor.dtype == torch.bool else tensor + 0  # -0.0 is 0.0
            raw = plain.flatten().view(torch.uint8).numpy()
            self._digests[id(tensor)] = hashlib.sha256(raw.data).digest()
        return self._digests[id(tensor)]


def _zero_bias(names: ParameterNames, weight: torch.Tensor, product: Any, tensors: _Tensors) -> torch.Tensor:
    """The bias of a linear layer that the exporter dropped because it is all zeros."""
    as_it_was = product.op_type == "Gemm" and is_turned(product) and names.is_parameter(product.input[1])
    return tensors.zeros(weight.shape[1 if as_it_was else 0], weight.dtype)


def _left_out(names: ParameterNames, found: Mapping[str, torch.Tensor], tensors: _Tensors) -> dict[str, torch.Tensor]:
    """Parameters of the model that the graph lacks: zero biases, and norm weights merged with equal ones."""
    products, scales = names.products(), names.scales()
    more = {}
    for name in names.expected - found.keys():
        layer, _, key = name.rpartition(".")
        weight = found.get(f"{layer}.weight")
        if name in scales:
            more[name] = tensors.read(scales[name])
        elif key == "bias" and layer in products and weight is not None and weight.dim() == 2:
            more[name] = _zero_bias(names, weight, products[layer], tensors)
    return more


def import_onnx(path: Path | str) -> dict[str, torch.Tensor]:
    """Parameters and buffers of an ONNX model written by torch's exporters, as dense tensors with zeros.

    Weights of linear layers are returned as [out_features, in_features] under the layers' names, see `onnx_names`. A
    weight that cannot be traced to a layer (other exporters, models exported without names) keeps its name and
    orientation in the file. Constants of the graph are left out. Nothing is run.

    The exporter before torch 2.5 does not record containers that are never called, except `nn.ModuleList`: the layer
    `blocks.first` without a bias, where `blocks` is an `nn.ModuleDict`, is called `first`.

    Args:
        path: the `.onnx` file; external weights are read only from files in its own folder.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: onnx is not installed.
        ValueError: the file is malformed, quantized, or optimized so that the layers' weights are gone, or two
            different weights get the same name.
    """
    where = Path(path)
    names = ParameterNames(open_graph(where))
    tensors = _Tensors(names, where.parent)
    found: dict[str, torch.Tensor] = {}
    plain = [(name, name, False) for name in names.tensors if names.is_parameter(name)]
    for name, source, turned in (*plain, *names.uses()):
        tensor = tensors.read(source, turned=turned)
        if name in found and not tensors.are_equal(found[name], tensor):
            raise ValueError(f"{where}: two different weights lead to {name!r}, one of them is {source!r}")
        found[name] = tensor
    return found | _left_out(names, found, tensors)
