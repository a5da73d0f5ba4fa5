"""Write a model's tensors: sparse weights in the smallest form, all others unchanged; say which are what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

import sparsekit
from sparsekit.checkpoint.shards import ShardWriter
from sparsekit.checkpoint.tensors import storable, without_shared
from sparsekit.folder.layout import nbytes_of, weight_arrays
from sparsekit.folder.manifest import EmbeddingEntry, LayerEntry, Manifest
from sparsekit.folder.model_folder import MOST_GROWTH
from sparsekit.folder.stored_weight import arrays_of, smallest_form
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import FLOATS, dtype_name
from sparsekit.formats.tensors import values_array, values_tensor
from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.nn import Int8Embedding, SparseLinear
from sparsekit.pruning.layers import oriented


def as_stored(name: str, weight: CSR, form: str) -> dict[str, torch.Tensor]:
    """The arrays of a sparse weight, with the names and dtypes of the format."""
    arrays = arrays_of(weight, form)
    tensors = {part: torch.from_numpy(array) for part, array in arrays.items() if part != "values"}
    tensors["values"] = values_tensor(arrays["values"])
    return {f"{name}.{part}": tensor for part, tensor in tensors.items()}


def _sparse_layers(model: nn.Module) -> Iterator[tuple[str, SparseLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, SparseLinear):
            yield name, module


def _int8_embeddings(model: nn.Module) -> dict[str, Int8Embedding]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Int8Embedding)}


def _pays(weight: torch.Tensor) -> bool:
    """Whether a dense weight takes fewer bytes as CSR and survives the round trip."""
    rows, columns = weight.shape
    stored = nbytes_of(weight_arrays((rows, columns), dtype_name(weight.dtype), int(weight.count_nonzero())))
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


def _with_dtype(weight: CSR, dtype: torch.dtype) -> CSR:
    """The weight with its values, which were of this type before, in it again."""
    values = values_array("values", torch.from_numpy(weight.values).to(dtype))
    return CSR(weight.crow_indices, weight.col_indices, values, weight.shape)


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
        weight = sparse.to_csr()
        form = smallest_form(weight)
        kind = form, "sparse", sparse.block, sparse.activation
        layers[name] = LayerEntry(weight.shape, sparse.dtype, weight.nnz, *kind)
        shards.add(as_stored(name, weight, form))
        dense_bytes += weight.out_features * weight.in_features * sparse.weight_dtype.itemsize
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
        weight = _with_dtype(CSR.from_torch(oriented(model.get_submodule(layer), tensor)), tensor.dtype)
        layers[layer] = LayerEntry(weight.shape, weight.dtype, weight.nnz, in_model="dense")
        shards.add(as_stored(layer, weight, "csr"))
    manifest = Manifest(sparsekit.__version__, layers, embeddings, shards.entries, shared)
    shards.add(left_out(manifest))
    shards.close()
    return manifest, dense_bytes
