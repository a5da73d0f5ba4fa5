"""Open files of a folder that nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsekit.checkpoint.hub import blobs_of

#: Largest JSON file that is read, in bytes: room for the 300,000 arrays of a very large model.
LARGEST_JSON = 64 * 2**20


def regular_file(folder: Path, name: str) -> Path:
    """Path of a plain file that lies in the folder itself or, of a model in the hub's cache, among that model's files.

    Raises:
        ValueError: the name is a path, or what it names is missing, no plain file or a link to somewhere else.
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"{folder} names {name!r} as one of its files; expected a plain file name without folders")
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ValueError(f"{path} is missing or cannot be opened ({error}); was the folder copied whole?") from error
    if real.parent not in (folder.resolve(), blobs_of(folder)):
        raise ValueError(f"{path} is a link out of the folder, to {real}; copy the file itself into the folder")
    if not real.is_file():
        raise ValueError(f"{path} must be a plain file")
    return real


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in the same object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def parse_json(text: bytes) -> Any:
    """The value that the text holds, read strictly: no key twice, no NaN or infinities.

    Raises:
        ValueError: the text is no such JSON.
    """
    try:
        return json.loads(text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("its objects are nested too deeply") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of reasonable size.

    Raises:
        ValueError: the file is larger than `LARGEST_JSON`, no JSON, or holds something else than an object.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path} must have at most {LARGEST_JSON} bytes, got {size}")
    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); copy the folder again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, got a {type(found).__name__}")
    return found
