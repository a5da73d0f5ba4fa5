"""Read a written folder back before it replaces the old one: it must be complete and loadable."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from sparsekit.checkpoint.fitting import check_names, fit
from sparsekit.checkpoint.module_state import differing, left_out
from sparsekit.checkpoint.tensors import storable
from sparsekit.checkpoint.transformers.buffers import fill_buffers
from sparsekit.checkpoint.transformers.models import (
    class_in_mappings,
    fill_generation_config,
    is_changed_by_itself,
    is_transformers,
    make_empty,
)
from sparsekit.folder.manifest import Manifest
from sparsekit.folder.model_folder import ModelFolder, memory_limit

#: Modules that do nothing in inference, and are interchangeable.
_IDLE = (nn.Dropout, nn.Identity)


@contextmanager
def _refusals_of_readers(folder: Path) -> Iterator[None]:
    """Turn errors of reading into errors that say that the model was not saved."""
    try:
        yield
    except ValueError as error:
        reason = str(error).replace(f"{folder}/", "")
        raise ValueError(f"nothing was saved, because the folder could not be opened again: {reason}") from error


def _made(folder: Path, manifest: Manifest, most_bytes: int, cls: type[Any] | None) -> tuple[Any, set[str]]:
    fresh = make_empty(folder, manifest, cls)
    blank = copy.deepcopy(fresh)
    resized = fit(fresh, manifest)
    check_names(fresh, manifest)
    fill_buffers(fresh, blank, most_bytes)
    fill_generation_config(fresh, folder)
    return fresh, resized


def _as_read(model: nn.Module, folder: Path, manifest: Manifest, most_bytes: int) -> tuple[Any, set[str]]:
    """The model as `load` builds it, without weights (None if `load` needs one), and the names of resized layers."""
    if not is_transformers(model):
        return None, set()
    if class_in_mappings(model.config, type(model).__name__) is not None:
        return _made(folder, manifest, most_bytes, None)
    try:
        return _made(folder, manifest, most_bytes, type(model))
    except ValueError:  # the constructor of a custom class may need more than a configuration
        return None, set()


def state_to_store(model: nn.Module, folder: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    """State that a folder must store in addition to `manifest`, because a reader would not reproduce it.

    Args:
        model: the model to save.
        folder: folder with its `config.json`.
        manifest: its parameters and persistent buffers.

    Raises:
        TypeError, ValueError: the model built from `config.json` does not fit the tensors, or files cannot store the
            state.
    """
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with _refusals_of_readers(folder):
        fresh, _ = _as_read(model, folder, manifest, memory_limit(size))
    found = {} if fresh is None else differing(model, fresh)
    return {name: storable(name, tensor) for name, tensor in sorted(found.items())}


def _stands_for(module: nn.Module, other: nn.Module) -> bool:
    """Whether one module can replace the other without changing the model."""
    kinds = type_before_parametrizations(module), type_before_parametrizations(other)
    return issubclass(*kinds) or (isinstance(module, _IDLE) and isinstance(other, _IDLE))


def _check_classes(model: nn.Module, fresh: nn.Module, resized: set[str]) -> None:
    """Refuse replaced modules, which a folder does not record."""
    made = dict(fresh.named_modules())
    for name, module in model.named_modules():
        other = made.get(name, module)
        is_whole = not any(layer.startswith(f"{name}.") for layer in resized)
        if not (_stands_for(module, other) or (is_whole and is_changed_by_itself(module, other))):
            raise ValueError(f"{name} is a {type(module).__name__}, and a {type(other).__name__} in the model that "
                             "config.json describes; change the configuration too")  # fmt: skip


def check_plain(model: nn.Module, fresh: nn.Module) -> None:
    """Refuse a model that a plain folder, with only the tensors that its configuration implies, cannot store.

    Args:
        model: the model, dense.
        fresh: a model built from its configuration.

    Raises:
        ValueError: neurons were removed, or the model has state that is not a tensor in such a folder.
    """
    expected = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if name in expected and tensor.shape != expected[name]:
            raise ValueError(
                f"{name} must have shape {list(expected[name])} for transformers to open it, got {list(tensor.shape)}: "
                "neurons were removed; save with dense=False and open with sparsekit.load"
            )
    lost = _lost_without_a_place(model, fresh)
    if lost:
        raise ValueError(f"{lost[:5]} are not what the configuration leads to, and a dense folder holds only tensors; "
                         "save with dense=False")  # fmt: skip


def _lost_without_a_place(model: nn.Module, fresh: nn.Module) -> list[str]:
    """State found by `differing` that would be lost and affects outputs."""
    modules = dict(model.named_modules())
    made = left_out(fresh)
    found = {name: value for name, value in differing(model, fresh).items() if not _was_cast(value, made[name])}
    changed = [name for name, value in found.items() if _is_computed_with(name, value)]
    return [name for name in changed if not isinstance(modules[name.rpartition(".")[0]], _IDLE)]


def _is_computed_with(name: str, value: torch.Tensor) -> bool:
    """Whether outputs depend on this state: true of floats, except dropout rates and `inv_freq`.

    Dynamic RoPE changes `inv_freq` as it runs. Integers are skipped, since users set token and padding ids in the
    configurations of existing models.
    """
    key = name.rpartition(".")[2]
    return value.is_floating_point() and value.numel() > 0 and key != "inv_freq" and "dropout" not in key


def _was_cast(value: torch.Tensor, made: object) -> bool:
    """Whether a buffer equals the freshly computed one, cast to the model's dtype."""
    return isinstance(made, torch.Tensor) and not made.is_meta and torch.equal(made.to(value.dtype), value)


def check_readable(model: nn.Module, folder: Path) -> None:
    """Open a folder that was just written as `load` would, without keeping its tensors.

    Checksums of dense arrays are compared here, those of sparse weights in `write_verification`.

    Raises:
        ValueError: a reader would refuse the folder, or build a different model from it.
    """
    with _refusals_of_readers(folder):
        stored = ModelFolder(folder)
        for name in stored.manifest.plain_arrays():
            stored.raw(name)
        for name in stored.manifest.embeddings:
            stored.table(name)
        fresh, resized = _as_read(model, folder, stored.manifest, stored.memory_limit)
        if fresh is not None:
            _check_classes(model, fresh, resized)
