"""Identity of a run, so that a run with other inputs does not resume from its checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from sparsekit.io.atomic_file import write_json
from sparsekit.recipes.recipe import Recipe

_NAME = "run.json"


def _digest(path: Path | None) -> str:
    """Hash of a file, or of the files in a folder, without subfolders such as the work of an earlier run."""
    if path is None:
        return ""
    found = hashlib.sha256()
    for file in sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]:
        found.update(file.name.encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def claim(work: Path, recipe: Recipe, inputs: Mapping[str, Path | None]) -> None:
    """Mark a folder as belonging to a run.

    Args:
        work: the work folder.
        recipe: the recipe of the run.
        inputs: files and folders that the run reads, by role.

    Raises:
        ValueError: the folder belongs to another run.
    """
    wanted = {"recipe": recipe.to_yaml()} | {name: _digest(path) for name, path in inputs.items()}
    path = work / _NAME
    if not path.exists():
        write_json(path, wanted)
        return
    found = json.loads(path.read_text())
    other = [name for name, value in wanted.items() if found.get(name) != value]
    if other:
        raise ValueError(
            f"{work} holds checkpoints of a run with another {' and '.join(other)}; choose another folder for this "
            "one, or delete it"
        )
