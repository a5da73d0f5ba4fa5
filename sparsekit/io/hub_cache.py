"""Models in the local cache of the Hugging Face hub; nothing is downloaded.

The cache has a folder `models--ORG--NAME` for every model: its files lie in `blobs`, and `snapshots/REVISION` holds
links to them by the names that the files have.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from sparsekit.io.file_names import CONFIG, MANIFEST, SENTENCE_MODULES

#: Any of them says that a model is in the cache.
_MAIN_FILES = (MANIFEST, CONFIG, SENTENCE_MODULES)


def _snapshot(name: str) -> Path | None:
    """The folder of a model in the cache; None if it is not there, is no name of a model or no cache is installed."""
    try:
        hub = importlib.import_module("huggingface_hub")
        found = [hub.try_to_load_from_cache(name, file) for file in _MAIN_FILES]
    except (ImportError, ValueError):
        return None
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def local_folder(source: Path | str) -> Path:
    """The folder of this path, or of the model of this name in the cache.

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
    """Where the files lie that a folder inside a snapshot of the cache may link to; None for any other folder."""
    for parent in folder.resolve().parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            return parent.parent / "blobs"
    return None
