"""Write a model's tensors: sparse weights as CSR in the narrowest dtypes, all others unchanged; say which are what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

import sparsekit
from sparsekit.checkpoint.shards import ShardWriter
from sparsekit.checkpoint.tensors import storable, without_shared
from sparsekit.folder.layout import column_dtype, row_dtype
from sparsekit.folder.manifest import EmbeddingEntry, LayerEntry, Manifest
from sparsekit.folder.model_folder import MOST_GROWTH
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import BY_SAFETENSORS, FLOATS, dtype_name
from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.nn import Int8Embedding, SparseLinear
from sparsekit.pruning.layers import oriented


def _narrow(indices: torch.Tensor, dtype: str) -> torch.Tensor:
    return torch.from_numpy(indices.numpy().astype(BY_SAFETENSORS[dtype].numpy))


def _as_stored(name: str, state: Mapping[str, torch.Tensor], in_features: int) -> dict[str, torch.Tensor]:
    """CSR arrays, and scales if any, with the names and dtypes of the format."""
    arrays = {
        "crow_indices": _narrow(state["crow_indices"], row_dtype(state["values"].numel())),
        "col_indices": _narrow(state["col_indices"], column_dtype(in_features)),
        "values": state["values"],
    }
    if "scales" in state:
        arrays["scales"] = state["scales"]
    return {f"{name}.{part}": array.contiguous() for part, array in arrays.items()}


def _sparse_layers(model: nn.Module) -> Iterator[tuple[str, SparseLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, SparseLinear):
            yield name, module


def _int8_embeddings(model: nn.Module) -> dict[str, Int8Embedding]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Int8Embedding)}


def _pays(weight: torch.Tensor) -> bool:
    """Whether a dense weight takes fewer bytes as CSR and survives the round trip."""
    rows, columns = weight.shape
    entry_bytes = weight.element_size() + BY_SAFETENSORS[column_dtype(columns)].nbytes
    stored = int(weight.count_nonzero()) * entry_bytes + (rows + 1) * 4
    if not stored < weight.nbytes <= stored * MOST_GROWTH // 2:
        return False
    return not bool((weight.signbit() & (weight == 0)).any())  # CSR does not keep negative zeros


def _layer_of(model: nn.Module, name: str, tensor: torch.Tensor) -> str | None:
    """Name of the linear layer that this tensor is the weight of, if it should be stored sparse."""
    layer, _, key = name.rpartition(".")
    if not layer or key != "weight" or dtype_name(tensor.dtype) not in FLOATS:
        return None
    module = model.get_submodule(layer)
    return layer if is_dense_linear(module) and _pays(oriented(module, tensor)) else None


def store_weights(
    model: nn.Module, shards: ShardWriter, left_out: Callable[[Manifest], Mapping[str, torch.Tensor]]
) -> tuple[Manifest, int]:
    """Write all tensors of a model.

    Args:
        model: the model.
        shards: writer of the weight files.
        left_out: function that returns further tensors to write, given the manifest so far.

    Returns:
        Manifest of the written tensors, and their size in bytes if every weight were dense.

    Raises:
        TypeError, ValueError: as `storable`.
    """
    layers: dict[str, LayerEntry] = {}
    dense_bytes = 0
    for name, sparse in _sparse_layers(model):
        shape = sparse.out_features, sparse.in_features
        layers[name] = LayerEntry(shape, sparse.dtype, "sparse", sparse.block, sparse.activation)
        shards.add(_as_stored(name, sparse.state_dict(), sparse.in_features))
        dense_bytes += shape[0] * shape[1] * sparse.weight_dtype.itemsize
    tables = _int8_embeddings(model)
    dense_bytes += sum(table.codes.numel() * (table.output_dtype.itemsize - 1) for table in tables.values())
    embeddings = {name: EmbeddingEntry(dtype_name(table.output_dtype)) for name, table in tables.items()}
    tensors, shared = without_shared(model)
    for name in tensors:
        tensor = storable(name, tensors[name])
        dense_bytes += tensor.nbytes
        layer = _layer_of(model, name, tensor)
        if layer is None:
            shards.add({name: tensor})
            continue
        weight = CSR.from_torch(oriented(model.get_submodule(layer), tensor))
        layers[layer] = LayerEntry(weight.shape, dtype_name(tensor.dtype), "dense")
        arrays = {key: torch.from_numpy(getattr(weight, key)) for key in ("crow_indices", "col_indices", "values")}
        arrays["values"] = arrays["values"].to(tensor.dtype)
        shards.add(_as_stored(layer, arrays, weight.in_features))
    manifest = Manifest(sparsekit.__version__, layers, embeddings, shards.entries, shared)
    shards.add(left_out(manifest))
    shards.close()
    return manifest, dense_bytes
