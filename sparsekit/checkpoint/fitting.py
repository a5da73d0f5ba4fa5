"""Fit a freshly built model to a folder: insert sparse layers and int8 embeddings, resize layers to stored shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from sparsekit.checkpoint.module_state import can_hold
from sparsekit.checkpoint.tensors import named_tensors
from sparsekit.checkpoint.transformers.models import is_transformers
from sparsekit.folder.manifest import LayerEntry, Manifest
from sparsekit.formats.dtypes import BY_NAME, BY_SAFETENSORS
from sparsekit.fusion.activations import fuse_activations, split_activations
from sparsekit.introspect.dense_classes import is_conv1d, is_dense_linear
from sparsekit.nn import Int8Embedding, SparseLinear
from sparsekit.pruning.split_model import on_split_modules
from sparsekit.pruning.structured.attention import find_attentions, fit_attributes
from sparsekit.pruning.structured.narrowing import is_dense, shape_of, size_names
from sparsekit.splitting import pad_encoders


def _stored_shape(manifest: Manifest, name: str, layer: nn.Module) -> tuple[int, ...] | None:
    """Stored [out_features, in_features] of a dense layer; None if the folder does not contain it."""
    weight = f"{name}.weight"
    weight = manifest.shared.get(weight, weight)
    sparse = manifest.layers.get(name) or manifest.layers.get(weight.removesuffix(".weight"))
    if sparse is not None:
        return sparse.shape
    if weight not in manifest.arrays:
        return None
    shape = manifest.arrays[weight].shape
    return shape[::-1] if is_conv1d(layer) else shape


def _like(parameter: torch.Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    empty = torch.empty(shape, dtype=parameter.dtype, device="meta")
    return nn.Parameter(empty, requires_grad=parameter.requires_grad)


def _resize(layer: Any, shape: tuple[int, int]) -> None:
    """Resize a dense layer to the stored one, which may have fewer neurons."""
    for name, size in zip(size_names(layer), shape, strict=True):
        setattr(layer, name, size)
    layer.weight = _like(layer.weight, shape[::-1] if is_conv1d(layer) else shape)
    if layer.bias is not None:
        layer.bias = _like(layer.bias, shape[:1])


def _resize_all(model: nn.Module, manifest: Manifest) -> set[str]:
    """Resize dense layers to the stored ones and update the head counts of attentions; return the resized layers."""
    changed = set()
    for name, module in model.named_modules():
        if not is_dense(module) or module._parameters.get("weight") is None:
            continue
        shape = _stored_shape(manifest, name, module)
        if shape is not None and len(shape) == 2 and shape != shape_of(module):
            _resize(module, (shape[0], shape[1]))
            changed.add(name)
    for attention in find_attentions(model) if changed else ():
        all_dense = all(is_dense(model.get_submodule(layer)) for layer in attention.layers)
        if all_dense and attention.head_size > 0 and not changed.isdisjoint(attention.layers):
            fit_attributes(model, attention)
    return changed


def _sparse_for(layer: Any, entry: LayerEntry) -> SparseLinear:
    """An empty sparse layer to replace a layer."""
    out_features, in_features = entry.shape
    activation = layer.activation if type(layer) is SparseLinear else None
    sparse = SparseLinear(in_features, out_features, layer.bias is not None, activation)
    sparse.stand_for(layer)
    if layer.bias is not None:
        sparse.bias = _like(layer.bias, (out_features,))
    return sparse.train(layer.training)


def _fuse(model: nn.Module, manifest: Manifest) -> None:
    """Fuse exactly those activation functions that were fused in the stored model."""
    split_activations(model)
    layers: dict[str, Any] = dict(model.named_modules(remove_duplicate=False))
    fuse_activations(model, [layers[name] for name, layer in manifest.layers.items() if layer.activation is not None])
    for name, entry in manifest.layers.items():
        found = getattr(layers[name], "activation", None)
        if found != entry.activation:
            raise ValueError(f"layer {name!r} was stored with the activation function {entry.activation}, the model's "
                             f"code gives it {found}; make the model as the stored one was made")  # fmt: skip


def fit(model: nn.Module, manifest: Manifest) -> set[str]:
    """Replace and resize modules of a model in place to match a folder, without reading weights.

    Modules that are split in the folder are split too; see `sparsekit.splitting`.

    Returns:
        Names of the resized layers.

    Raises:
        ValueError: the folder has a sparse weight for a module that is not a linear layer, embeddings in int8 for one
            that is none, or a fused activation function that the model does not have.
    """
    resized = _fit_layers(model, manifest)
    _fit_embeddings(model, manifest)
    pad_encoders(model, SparseLinear)
    _fuse(model, manifest)
    return resized


def _places(modules: Mapping[str, nn.Module]) -> dict[int, list[str]]:
    """The names of each module."""
    places: dict[int, list[str]] = {}
    for name, module in modules.items():
        places.setdefault(id(module), []).append(name)
    return places


def _fit_embeddings(model: nn.Module, manifest: Manifest) -> None:
    modules = dict(model.named_modules(remove_duplicate=False))
    places = _places(modules)
    for name, entry in manifest.embeddings.items():
        table = modules.get(name)
        if not isinstance(table, nn.Embedding | Int8Embedding):
            found = "nothing" if table is None else f"a {type(table).__name__}"
            raise ValueError(f"the folder has embeddings in int8 for {name!r}, where the model has {found}")
        new = table if isinstance(table, Int8Embedding) else Int8Embedding.like(table)
        new.output_dtype = BY_NAME[entry.output_dtype].torch_dtype
        for place in places[id(table)]:
            model.set_submodule(place, new)


@on_split_modules
def _fit_layers(model: nn.Module, manifest: Manifest) -> set[str]:
    modules = dict(model.named_modules(remove_duplicate=False))
    places = _places(modules)
    resized = _resize_all(model, manifest)
    for name, entry in manifest.layers.items():
        layer = modules.get(name)
        is_sparse = entry.in_model == "sparse"
        if layer is None or not (is_dense_linear(layer) or (is_sparse and isinstance(layer, SparseLinear))):
            found = "nothing" if layer is None else f"a {type(layer).__name__}"
            raise ValueError(f"the folder has a sparse weight for {name!r}, where the model has {found}")
        if is_sparse:
            sparse = _sparse_for(layer, entry)
            for place in places[id(layer)]:
                model.set_submodule(place, sparse)
    return resized


def _stored_kind(model: nn.Module, manifest: Manifest, name: str) -> tuple[torch.dtype, tuple[int, ...]]:
    """Dtype and shape of a stored tensor of the model."""
    if name in manifest.arrays:
        return BY_SAFETENSORS[manifest.arrays[name].dtype].torch_dtype, manifest.arrays[name].shape
    layer = name.removesuffix(".weight")
    shape = manifest.layers[layer].shape
    return torch.float32, shape[::-1] if is_conv1d(model.get_submodule(layer)) else shape


def check_names(model: nn.Module, manifest: Manifest, new: Collection[str] = ()) -> None:
    """Raise ValueError unless a folder has exactly the model's tensors, with the right shapes and compatible dtypes.

    Args:
        model: the model, after `fit`.
        manifest: manifest of the folder.
        new: tensors of the model that may be missing in the folder.
    """
    tensors = {name: tensor for name, tensor in named_tensors(model) if name not in new}
    source = {name: name for name in (*manifest.model_arrays(), *manifest.dense_weights())} | dict(manifest.shared)
    missing = sorted(set(tensors) - set(source))
    alone = set(manifest.arrays) - set(manifest.shared.values())
    unknown = sorted(set(source) - set(tensors))
    state = alone if is_transformers(model) else set()  # `save` stores none for other models
    extra = [n for n in unknown if n not in state or not can_hold(model, n, *_stored_kind(model, manifest, n))]
    if missing or extra:
        raise ValueError(
            f"the folder does not fit the model: {missing[:5] or 'nothing'} missing, {extra[:5] or 'nothing'} extra; "
            "make the model as the stored one was made"
        )
    for name, tensor in tensors.items():
        dtype, shape = _stored_kind(model, manifest, source[name])
        both_float = dtype.is_floating_point and tensor.is_floating_point()
        if shape != tuple(tensor.shape) or not (both_float or dtype == tensor.dtype):
            expected, got = f"{tensor.dtype} {list(tensor.shape)}", f"{dtype} {list(shape)}"
            raise ValueError(f"{name} must be {expected} in this model, the folder has {got}")
