"""Find models in the local Hugging Face hub cache; nothing is downloaded.

The cache has a folder `models--ORG--NAME` for every model, with its files in `blobs` and links to them, by file name,
in `snapshots/REVISION`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from sparsekit.io.file_names import CONFIG, MANIFEST, SENTENCE_MODULES

#: A model is in the cache if any of these files is.
_MAIN_FILES = (MANIFEST, CONFIG, SENTENCE_MODULES)


def _snapshot(name: str) -> Path | None:
    """Snapshot folder of a model; None if it is not cached, the name is invalid or huggingface_hub is not installed."""
    try:
        hub = importlib.import_module("huggingface_hub")
        found = [hub.try_to_load_from_cache(name, file) for file in _MAIN_FILES]
    except (ImportError, ValueError):
        return None
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def local_folder(source: Path | str) -> Path:
    """A model folder, by path or by name in the hub cache.

    Raises:
        FileNotFoundError: there is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    found = _snapshot(str(source))
    if found is None:
        raise FileNotFoundError(f"there is no folder {source}, nor a model of this name in the local hub cache; "
                                f"nothing is downloaded here: hf download {source}")  # fmt: skip
    return found


def blobs_of(folder: Path) -> Path | None:
    """Folder of the blobs that a snapshot's files may link to; None for folders outside the cache."""
    for parent in folder.resolve().parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return parent.parent / "blobs"
    return None
