"""`read_weights`: read weights from a file or folder of any supported kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sparsekit.folder.model_folder import memory_limit
from sparsekit.importers.compressed_tensors import (
    check_not_quantized,
    dense_tensors,
    import_compressed_tensors,
    read_config,
)
from sparsekit.importers.onnx_weights import import_onnx
from sparsekit.importers.scipy_npz import import_scipy
from sparsekit.importers.torch_files import WHOLE, read_torch_file, read_torch_folder
from sparsekit.importers.torch_prune import without_masks
from sparsekit.importers.weight_files import read_safetensors
from sparsekit.io.file_names import CONFIG, INDEX, MANIFEST, WEIGHTS

_TAKES = (
    f"a folder with {WEIGHTS} or {WHOLE} (or several weight files and their index) or with .npz files of SciPy, or a "
    "file that ends in .safetensors, .pt, .pth, .bin, .ckpt, .npz or .onnx"
)


def _dense_scipy(path: Path) -> dict[str, torch.Tensor]:
    weights = import_scipy(path)
    files = path.glob("*.npz") if path.is_dir() else [path]
    limit = memory_limit(sum(file.stat().st_size for file in files))
    needed = sum(weight.out_features * weight.in_features * 4 for weight in weights.values())
    if needed > limit:
        raise ValueError(f"{path} takes {needed} bytes dense, far more than its files; read it with import_scipy")
    return {name: torch.from_numpy(weight.to_dense()) for name, weight in weights.items()}


def _safetensors_file(path: Path) -> dict[str, torch.Tensor]:
    return dense_tensors(read_safetensors(path))


#: File extension -> function that reads it.
_FILES: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    ".safetensors": _safetensors_file,
    ".pt": read_torch_file,
    ".pth": read_torch_file,
    ".bin": read_torch_file,
    ".ckpt": read_torch_file,
    ".npz": _dense_scipy,
    ".onnx": import_onnx,
}


def _reader(path: Path) -> Callable[[Path], dict[str, torch.Tensor]]:
    """The function that reads this file or folder."""
    if path.is_file():
        if path.suffix in _FILES:
            return _FILES[path.suffix]
        raise ValueError(f"expected {_TAKES}; got the file {path}")
    if (path / MANIFEST).exists():
        raise ValueError(f"{path} was written by sparsekit.save; open it with sparsekit.load")
    if (path / WEIGHTS).exists() or (path / INDEX).exists():
        return import_compressed_tensors
    if (path / WHOLE).exists() or (path / f"{WHOLE}.index.json").exists():
        check_not_quantized(read_config(path), path / CONFIG)
        return read_torch_folder
    if any(path.glob("*.npz")):
        return _dense_scipy
    raise ValueError(f"expected {_TAKES}; got the folder {path}")


def _check_shared(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raise ValueError if too many names share memory: applying masks copies each, which could exhaust memory."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    needed, limit = sum(tensor.nbytes for tensor in tensors.values()), memory_limit(sum(storages.values()))
    if needed > limit:
        raise ValueError(
            f"{path} names tensors of {needed} bytes, far more than it holds: many are one under other names"
        )


def _without_prefix(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    found = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"no tensor's name begins with {prefix!r}; they are like {sorted(weights)[:3]}")
    return found


def read_weights(path: Path | str, prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights that another tool wrote to a file or folder, as dense tensors with zeros, for `model.load_state_dict`.

    Supported are Hugging Face folders and single files of safetensors or `torch.save`, with weights that are dense, bit
    masks of compressed-tensors, quantized by it, or masked by `torch.nn.utils.prune` or `torch.ao.pruning`; matrices of
    `scipy.sparse.save_npz`; ONNX models. Files are untrusted: no code in them is run.

    Args:
        path: the file or folder.
        prefix: read only tensors whose names start with it, and remove it from them, such as `"bert."`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ModuleNotFoundError: a library that reads this kind is not installed.
        ValueError: the kind is unsupported, or the file is malformed or quantized; the message says what was expected.
    """
    where = Path(path)
    if not where.exists():
        raise FileNotFoundError(f"there is no file or folder {where}; expected {_TAKES}")
    found = _reader(where)(where)
    _check_shared(found, where)
    weights = without_masks(found)
    if not weights:
        raise ValueError(f"{where} must hold weights, it has none")
    return _without_prefix(weights, prefix)
