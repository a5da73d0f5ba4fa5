"""Check the destination of a model before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from sparsekit.io.file_names import CONFIG, INDEX, MANIFEST, SENTENCE_MODULES, WEIGHTS

#: A folder with any of these files contains a model, which may be replaced.
_MODEL_FILES = (CONFIG, MANIFEST, WEIGHTS, INDEX, SENTENCE_MODULES, "pytorch_model.bin", "pytorch_model.bin.index.json")


def is_mount(folder: Path) -> bool:
    """Whether a folder is a mount point; `os.path.ismount` misses bind mounts within a file system."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return os.path.ismount(folder)
    places = (line.split()[4] for line in lines)  # blanks are escaped as \\040
    return str(folder) in {re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), place) for place in places}


def _nearest(folder: Path) -> Path:
    """The folder itself, or its nearest existing parent."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _check_writable(folder: Path, target: Path) -> None:
    above = _nearest(target.parent)
    if not above.is_dir():
        raise ValueError(f"{folder} cannot be made, {above} is a file")
    if target.exists() and is_mount(target):
        raise ValueError(f"{folder} is a mount point and cannot be replaced at once; save to a folder inside it")
    for place in (above, target):
        if place.exists() and not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} cannot be written: this user may not change {place}; save elsewhere")


def _check_foreign(folder: Path, target: Path, is_replaced: Callable[[str], bool]) -> None:
    """Raise ValueError if files that do not belong to a model would be replaced."""
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    lost = sorted(filter(is_replaced, names))
    if lost and names.isdisjoint(_MODEL_FILES):
        replaced = ", ".join(lost)
        raise ValueError(f"{folder} holds no model, and its {replaced} would be replaced; save to another folder")


def checked_destination(folder: Path, is_replaced: Callable[[str], bool]) -> Path:
    """Resolve the folder to write, after checking that it may be created or replaced.

    Args:
        folder: the path; links to folders are followed.
        is_replaced: whether an old entry of this name is removed.

    Raises:
        PermissionError: this user may not write there.
        ValueError: it is a file, a circular link, a mount point, or the current directory or a parent of it, or has
            files that do not belong to a model and would be replaced.
    """
    try:
        target = folder.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        raise ValueError(f"{folder} leads nowhere ({error})") from error
    if target.exists() and not target.is_dir():
        raise ValueError(f"{folder} must be a folder or not be there yet, it is a file")
    if Path.cwd().is_relative_to(target):
        raise ValueError(f"{folder} is where this process works and cannot be replaced; give a folder inside it")
    _check_writable(folder, target)
    _check_foreign(folder, target, is_replaced)
    return target
