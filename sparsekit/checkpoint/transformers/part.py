"""Match a model folder to a model of another class, or with other heads, that uses part of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from sparsekit.checkpoint.tensors import named_tensors
from sparsekit.folder.manifest import Manifest
from sparsekit.folder.model_folder import ModelFolder

#: Name of a module in the folder -> its name in the model, None if the model does not have it.
_Rename = Callable[[str], str | None]


def _names(manifest: Manifest) -> Iterator[str]:
    """Names of the model's tensors in a folder, except sparse weights of `SparseLinear`."""
    yield from (*manifest.model_arrays(), *manifest.dense_weights(), *manifest.shared)


def _modules_of(manifest: Manifest) -> set[str]:
    return {name.rpartition(".")[0] for name in _names(manifest)} | set(manifest.layers)


def _renaming(model: Any, manifest: Manifest) -> _Rename:
    """Add or remove the prefix that a model with a head puts before the names of its encoder or decoder."""
    modules = {name for name, _ in model.named_modules(remove_duplicate=False)}
    prefix = f"{model.base_model_prefix}."
    given = any(f"{name}.".startswith(prefix) for name in _modules_of(manifest))
    wanted = any(f"{name}.".startswith(prefix) for name in modules)

    def rename(module: str) -> str | None:
        path = f"{module}." if module else ""
        if wanted and not given:
            path = prefix + path
        elif given and not wanted:
            if not path.startswith(prefix):
                return None
            path = path.removeprefix(prefix)
        return path[:-1] if path[:-1] in modules else None

    return rename


def _of_tensors(rename: _Rename) -> _Rename:
    def renamed(name: str) -> str | None:
        module, _, key = name.rpartition(".")
        found = rename(module)
        return f"{found}.{key}" if found else None if found is None else key

    return renamed


def part_for(stored: ModelFolder, model: nn.Module) -> ModelFolder:
    """View of a folder that matches a model: the model's names, and only its modules.

    Args:
        stored: the folder.
        model: a transformers model of any class, built from the folder's `config.json`.

    Raises:
        ValueError: the model has none of the folder's modules, or it ties a weight that the folder stores under a name
            that the model does not have.
    """
    manifest = stored.manifest
    rename = _renaming(model, manifest)
    tensor = _of_tensors(rename)
    shared = {name: (tensor(name), tensor(other)) for name, other in manifest.shared.items()}
    lost = [name for name, (new, other) in shared.items() if new is not None and other is None]
    files = {new: place for name, place in stored.files.items() if (new := tensor(name)) is not None}
    if not files or lost:
        raise ValueError(f"{stored.path} holds no weights for a {type(model).__name__}; open it with sparsekit.load")
    part = copy.copy(stored)
    part.files = files
    part.manifest = replace(
        manifest,
        layers={new: layer for name, layer in manifest.layers.items() if (new := rename(name)) is not None},
        embeddings={new: one for name, one in manifest.embeddings.items() if (new := rename(name)) is not None},
        arrays={new: array for name, array in manifest.arrays.items() if (new := tensor(name)) is not None},
        shared={new: other for new, other in shared.values() if new is not None and other is not None},
    )
    return part


def lacking(model: nn.Module, manifest: Manifest) -> set[str]:
    """Tensors of modules of the model that the folder has no weights for, such as a new head."""
    known = _modules_of(manifest)
    return {name for name, _ in named_tensors(model) if name.rpartition(".")[0] not in known}
