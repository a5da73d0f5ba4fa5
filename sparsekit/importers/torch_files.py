"""Read state dicts written by `torch.save` from untrusted files: only tensors and plain containers, no code is run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from sparsekit.folder.model_folder import memory_limit
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import BY_NAME, dtype_name
from sparsekit.importers.torch_pickles import check_pickles
from sparsekit.importers.weight_files import read_shards
from sparsekit.io.safetensors_file import entries_of

#: Keys under which training scripts store the state dict in a checkpoint.
_INSIDE = ("state_dict", "model_state_dict", "model")
WHOLE = "pytorch_model.bin"
_INDEX = "pytorch_model.bin.index.json"


def _check_archive(path: Path) -> None:
    """Raise ValueError if a file is an archive that unpacks to far more than its size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
        if unpacked > memory_limit(path.stat().st_size):
            raise ValueError(f"it unpacks to {unpacked} bytes, far more than its {path.stat().st_size}")


def _load(path: Path) -> Any:
    try:
        _check_archive(path)
        check_pickles(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many exception types on malformed files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} must hold a state dict, as torch.save(model.state_dict(), ...) writes it; files with classes or "
            f"code in them are not read ({reason:.200})"
        ) from error


def _state_dict(value: Any) -> Mapping[Any, torch.Tensor] | None:
    """The state dict in the contents of a file, at most two levels deep."""
    for _ in range(3):
        if not isinstance(value, Mapping):
            return None
        if value and all(isinstance(one, torch.Tensor) for one in value.values()):
            return value
        value = next((value[key] for key in _INSIDE if key in value), None)
    return None


def _check_dense_size(tensors: Iterable[torch.Tensor], file_bytes: int) -> None:
    """Raise ValueError if sparse tensors, some perhaps shared, would take far more memory when dense than the file."""
    shapes = [tensor.shape for tensor in tensors if tensor.layout == torch.sparse_csr]
    needed = sum(entries_of(list(shape)) * 4 for shape in shapes)
    if needed > memory_limit(file_bytes):
        raise ValueError(f"sparse tensors of {needed} bytes when dense are far more than the file's bytes")


def _checked(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor from a file, validated and made dense."""
    if tensor.layout == torch.sparse_csr:
        for part in (tensor.crow_indices(), tensor.col_indices(), tensor.values()):
            _checked(part)
        return torch.from_numpy(CSR.from_torch(tensor).to_dense()).to(tensor.dtype)
    if tensor.layout != torch.strided or dtype_name(tensor.dtype) not in BY_NAME or tensor.is_meta:
        raise ValueError(f"expected a plain dense tensor, got {tensor.dtype} with layout {tensor.layout}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of shape {list(tensor.shape)} has more entries than the file holds")
    return tensor.detach()


def read_torch_file(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file written by `torch.save`, which may be a whole training checkpoint.

    Raises:
        ValueError: the file contains something else, or tensors that are not plain.
    """
    state = _state_dict(_load(path))
    if state is None:
        raise ValueError(f"{path} must hold a state dict, or one under {', '.join(_INSIDE)}; got none")
    try:
        _check_dense_size(state.values(), path.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    found = {}
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise ValueError(f"{path}: names of tensors must be strings, got {name!r:.80}")
        try:
            found[name] = _checked(tensor)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {name!r}: {error}") from error
    return found


def read_torch_folder(folder: Path) -> dict[str, torch.Tensor]:
    """The state dict in `pytorch_model.bin`, or in the files listed in its index.

    Raises:
        ValueError: a file is missing or malformed.
    """
    return read_shards(folder, WHOLE, _INDEX, read_torch_file)
