"""Weights of ONNX models under the names that they had in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sparsekit.importers.onnx_file import open_graph, to_tensor
from sparsekit.importers.onnx_names import ParameterNames, is_turned


def _zero_bias(names: ParameterNames, weight: torch.Tensor, product: Any) -> torch.Tensor:
    """The bias of a linear layer that the exporter left out because all of it is zero."""
    as_it_was = product.op_type == "Gemm" and is_turned(product) and names.is_parameter(product.input[1])
    return weight.new_zeros(weight.shape[1 if as_it_was else 0])


def _left_out(names: ParameterNames, found: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """What the model had and the graph has not under its name: zero biases, and norms that are equal to others."""
    products, scales = names.products(), names.scales()
    more = {}
    for name in names.expected - found.keys():
        layer, _, key = name.rpartition(".")
        weight = found.get(f"{layer}.weight")
        if name in scales:
            more[name] = to_tensor(names.tensors[scales[name]], folder)
        elif key == "bias" and layer in products and weight is not None and weight.dim() == 2:
            more[name] = _zero_bias(names, weight, products[layer])
    return more


def import_onnx(path: Path | str) -> dict[str, torch.Tensor]:
    """Parameters and buffers of an ONNX model that torch's exporters wrote, dense with their zeros.

    The weights of linear layers come back as [out_features, in_features] under the layers' names, see `onnx_names`.
    Where nothing leads to a layer (other exporters, models exported without names) a weight keeps the name and the
    orientation that it has in the file. Constants of the graph are left out. Nothing is run.

    The exporter before torch 2.5 does not write the names of modules that hold others and are not called, apart from
    `nn.ModuleList`: of the layer `blocks.first` without a bias, where `blocks` is an `nn.ModuleDict`, `first` is left.

    Args:
        path: the `.onnx` file; weights that lie beside it are read from files of its own folder only.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: onnx is not installed.
        ValueError: the file is malformed, quantised or optimised so that layers' weights are no longer there, or two
            different weights lead to one name.
    """
    where = Path(path)
    names = ParameterNames(open_graph(where))
    made: dict[tuple[int, bool], torch.Tensor] = {}  # however often a file names a tensor, it is there once
    found: dict[str, torch.Tensor] = {}
    plain = [(name, name, False) for name in names.tensors if names.is_parameter(name)]
    for name, source, turned in (*plain, *names.uses()):
        tensor = names.tensors[source]
        key = id(tensor), turned
        if key not in made:
            dense = to_tensor(tensor, where.parent)
            made[key] = dense.T.contiguous() if turned else dense
        if name in found and not torch.equal(found[name], made[key]):
            raise ValueError(f"{where}: two different weights lead to {name!r}, one of them is {source!r}")
        found[name] = made[key]
    return found | _left_out(names, found, where.parent)
