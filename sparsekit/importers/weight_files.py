"""Read tensors from safetensors files: a single file, or the shards of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from sparsekit.checkpoint.tensors import to_tensor
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.io.file_names import INDEX, WEIGHTS
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.io.untrusted import read_object, regular_file


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Copies of all tensors in one file, by name.

    Raises:
        ValueError: it is not a well-formed safetensors file, or contains unsupported dtypes, such as fp8.
    """
    file = ArrayFile(path)
    places = file.places.items()
    return {name: to_tensor(name, file.raw(name), BY_SAFETENSORS[place.dtype], place.shape) for name, place in places}


def join(parts: Iterable[tuple[Path, dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """Combine the tensors of several files.

    Raises:
        ValueError: two files contain the same name.
    """
    found: dict[str, torch.Tensor] = {}
    for path, tensors in parts:
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise ValueError(f"{path} holds {twice[0]!r}, which another weight file of the folder holds too")
        found.update(tensors)
    return found


def read_shards(
    folder: Path, whole: str, index: str, read: Callable[[Path], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The tensors of a folder whose weights are in the file `whole`, or in several listed in `index`.

    Raises:
        ValueError: a file is missing, malformed or a link out of the folder, or the index does not match.
    """
    if not (folder / index).exists():
        return read(regular_file(folder, whole))
    where = read_object(regular_file(folder, index)).get("weight_map")
    suffix = Path(whole).suffix
    if not isinstance(where, dict) or not all(
        isinstance(name, str) and name.endswith(suffix) for name in where.values()
    ):
        raise ValueError(f"{folder / index} must hold a weight_map from tensors to {suffix} files")
    paths = [regular_file(folder, name) for name in sorted(set(where.values()))]
    found = join((path, read(path)) for path in paths)
    if found.keys() != where.keys():
        other = sorted(found.keys() ^ where.keys())[:5]
        raise ValueError(f"{folder / index} and its weight files must name the same tensors, they differ in {other}")
    return found


def read_safetensors_folder(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors in `model.safetensors`, or in the files listed in `model.safetensors.index.json`.

    Raises:
        ValueError: as `read_shards`.
    """
    return read_shards(folder, WEIGHTS, INDEX, read_safetensors)
