"""Read files of an untrusted folder."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from sparsekit.io.hub_cache import blobs_of

#: Largest JSON text to read, in bytes, and largest number of commas, colons and opening brackets in it, which bounds
#: the number of values: the worst text (one object of short keys) takes 0.7 s and 240 MB. Sufficient for the int8
#: folder of a model with 70B parameters in 1,000 layers of 10 tensors: for its 31,000 arrays, sparsekit.json has 8.9 MB
#: with 433,000 such characters, the index 2.6 MB, and the header of a single weight file 3.7 MB.
LARGEST_JSON = 32 * 2**20
MOST_SIGNS = 5 * 2**18
_SIGNS = (b",", b":", b"[", b"{")
#: Deepest nesting of objects and lists, so that recursion over values cannot overflow the stack.
_DEEPEST_JSON = 64


def regular_file(folder: Path, name: str) -> Path:
    """Path of a regular file in the folder or, for a model in the hub cache, among that model's blobs.

    Raises:
        ValueError: the name is a path, or the file is missing, not a regular file or a link to elsewhere.
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


def _check_size(text: bytes) -> None:
    # With non-ASCII text, Python may store every character in 4 bytes.
    most = LARGEST_JSON if text.isascii() else LARGEST_JSON // 4
    if len(text) > most:
        raise ValueError(f"JSON must have at most {most} bytes, got {len(text)}")
    signs = sum(map(text.count, _SIGNS))
    if signs > MOST_SIGNS:
        raise ValueError(f"JSON must have at most {MOST_SIGNS} commas, colons and brackets, got {signs}")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST_JSON):
        inside = chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level)
        level = [one for one in inside if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError("its objects are nested too deeply")


def parse_json(text: bytes) -> Any:
    """Parse JSON strictly: no duplicate keys, no NaN or infinities.

    Raises:
        ValueError: the text is not such JSON, or is too large or deep to be parsed in little time and memory.
    """
    import json  # deferred: opening a compiled model reads no JSON and must start fast

    _check_size(text)
    try:
        found = json.loads(text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("its objects are nested too deeply") from error
    if isinstance(found, dict | list):
        _check_depth(found)
    return found


def read_json(path: Path) -> Any:
    """Read a JSON file of limited size.

    Raises:
        ValueError: the file is larger than `LARGEST_JSON`, or not JSON that `parse_json` accepts.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path} must have at most {LARGEST_JSON} bytes, got {size}")
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); copy the folder again") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of limited size.

    Raises:
        ValueError: as `read_json`, or the value is not an object.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, got a {type(found).__name__}")
    return found
