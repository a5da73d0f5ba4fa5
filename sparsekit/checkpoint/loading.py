"""`load`: load a model folder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsekit.checkpoint.fitting import check_names, fit
from sparsekit.checkpoint.module_state import left_out, restore
from sparsekit.checkpoint.tensors import named_tensors, to_tensor
from sparsekit.checkpoint.transformers.buffers import fill_buffers
from sparsekit.checkpoint.transformers.models import fill_generation_config, make_empty
from sparsekit.folder.layout import EMBEDDING_ARRAYS
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.formats.dtypes import BY_NAME, BY_SAFETENSORS
from sparsekit.io.atomic_folder import read_whole
from sparsekit.io.hub_cache import local_folder
from sparsekit.pruning.layers import oriented


def load(folder: Path | str, *, model: nn.Module | None = None) -> Any:
    """Load the model in a folder that `save` wrote.

    Folders are untrusted: everything is validated before use, every array has a checksum, and no code named in the
    folder is run. Sparse weights are packed layer by layer and never made dense.

    Args:
        folder: the folder, or the name of a model in the local Hugging Face hub cache.
        model: for models outside transformers: a model freshly built by the same code, into which the weights are
            loaded in place. Do not use it after an error.

    Returns:
        The model: `model`, or the transformers model described by `config.json`, in eval mode.

    Raises:
        FileNotFoundError: there is no such folder or model; nothing is downloaded.
        ModuleNotFoundError: the folder holds a transformers model, and transformers is not installed.
        TypeError: `model` is not an `nn.Module`.
        ValueError: files are missing, damaged or malformed, or do not fit the model; the message says which and how.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    path = local_folder(folder)
    stored, fresh = read_whole(path, lambda: _open(path, model))
    blank = copy.deepcopy(fresh) if model is None else None
    fit(fresh, stored.manifest)
    check_names(fresh, stored.manifest)
    if blank is not None:
        fill_buffers(fresh, blank, stored.memory_limit)
    fill(fresh, stored)
    check_filled(fresh)
    return fresh.eval() if model is None else fresh


def _open(path: Path, model: nn.Module | None) -> tuple[ModelFolder, Any]:
    """The folder, and `model` or an empty model built from the folder's config."""
    stored = ModelFolder(path)
    stored.read_ahead()
    if model is not None:
        return stored, model
    empty = make_empty(path, stored.manifest)
    fill_generation_config(empty, path)
    return stored, empty


def _dense_weight(stored: ModelFolder, layer: str) -> torch.Tensor:
    return torch.from_numpy(stored.weight(layer).to_dense()).to(
        BY_NAME[stored.manifest.layers[layer].dtype].torch_dtype
    )


def _set(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, tensor)


def _tensors(model: nn.Module, stored: ModelFolder) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the model but sparse weights, one at a time."""
    manifest = stored.manifest
    for name, layer in manifest.layers.items():
        if layer.in_model == "dense":
            yield f"{name}.weight", oriented(model.get_submodule(name), _dense_weight(stored, name)).contiguous()
    for name in manifest.embeddings:
        for part, array in zip(EMBEDDING_ARRAYS, stored.table(name), strict=True):
            yield f"{name}.{part}", torch.from_numpy(array)
    for name in manifest.plain_arrays():
        entry = manifest.arrays[name]
        yield name, to_tensor(name, stored.raw(name), BY_SAFETENSORS[entry.dtype], entry.shape)


def fill(model: nn.Module, stored: ModelFolder) -> None:
    """Load all stored tensors into a model that was fitted to the folder.

    Each tensor replaces the model's own before the next one is read.

    Raises:
        ValueError: an array is damaged or malformed.
    """
    manifest = stored.manifest
    tensors = dict(named_tensors(model))
    gradients = {name: old.requires_grad for name, old in tensors.items() if isinstance(old, nn.Parameter)}
    for name, layer in manifest.layers.items():
        if layer.in_model == "sparse":
            _set(model, f"{name}.packed", torch.from_numpy(stored.packed(name)))
    shared = set(manifest.shared.values())
    found = {}
    for name, tensor in _tensors(model, stored):
        if name not in tensors:
            restore(model, name, tensor)
            continue
        filled = nn.Parameter(tensor, requires_grad=gradients[name]) if name in gradients else tensor
        _set(model, name, filled)
        if name in shared:
            found[name] = filled
    for name, other in manifest.shared.items():
        _set(model, name, found[other])


def check_filled(model: nn.Module) -> None:
    """Raise ValueError if a tensor of the model is still on the meta device."""
    plain = [(name, value) for name, value in left_out(model).items() if isinstance(value, torch.Tensor)]
    tensors = (*model.named_parameters(), *model.named_buffers(), *plain)
    empty = [name for name, tensor in tensors if tensor.is_meta]
    if empty:
        raise ValueError(f"model is on meta, and files do not hold {empty[:5]}; make it on the CPU")
