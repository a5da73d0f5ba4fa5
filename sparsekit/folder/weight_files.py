"""Open the weight files of a Hugging Face model folder: one, or several with an index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sparsekit.folder.layout import is_shard
from sparsekit.io.file_names import INDEX, WEIGHTS
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.io.untrusted import read_object, regular_file


def _read_index(folder: Path) -> dict[str, str]:
    """Read the index: array -> shard."""
    path = regular_file(folder, INDEX)
    index = read_object(path)
    found = index.get("weight_map")
    if not isinstance(found, dict) or set(index) - {"metadata", "weight_map"}:
        raise ValueError(f"{path} must hold metadata and weight_map, got {sorted(index)}")
    for name, shard in found.items():
        if not isinstance(shard, str) or not is_shard(shard):
            raise ValueError(f"{path}: array {name!r} must lie in a file like model-00001-of-00002.safetensors of this "
                             f"folder, got {shard!r}")  # fmt: skip
    return found


def weight_files(folder: Path) -> dict[str, ArrayFile]:
    """Open the weight files: array -> file.

    Raises:
        ValueError: a file is missing, damaged or a link out of the folder, or the index does not match the files.
    """
    if not (folder / INDEX).exists():
        whole = ArrayFile(regular_file(folder, WEIGHTS))
        return dict.fromkeys(whole.places, whole)
    index = _read_index(folder)
    shards = {name: ArrayFile(regular_file(folder, name)) for name in sorted(set(index.values()))}
    found = [(array, name) for name, shard in shards.items() for array in shard.places]
    if len(found) != len(index) or dict(found) != index:
        raise ValueError(f"{folder / INDEX} does not name the arrays that the weight files hold")
    return {array: shards[name] for array, name in index.items()}


def check_finalized(folder: Path | str, names: Iterable[str]) -> None:
    """Raise ValueError if arrays of these names store a parametrized weight, such as the mask that `prune` adds."""
    found = next((name for name in names if ".parametrizations." in name), None)
    if found is not None:
        raise ValueError(f"{folder} stores a parametrized weight, {found!r}; call sparsekit.finalize(model) before "
                         "saving it, which bakes masks in")  # fmt: skip
