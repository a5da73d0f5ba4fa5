"""Write files atomically: a reader sees the old file or the new one; print untrusted text safely."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def printable(text: str, keep: str = "") -> str:
    r"""Escape control characters of untrusted text, which could move a terminal's cursor or change its colors.

    Args:
        text: the text.
        keep: characters not to escape, such as the newline.

    >>> print(printable("layer\x1b[31m"))
    layer\x1b[31m
    """
    shown = (one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text)
    return "".join(shown)


def write_json(path: Path, value: Any) -> None:
    """Write JSON types to a file, atomically."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_json_lines(path: Path, rows: Iterable[Any]) -> Path:
    """Write JSON types to a file, one a line, atomically; returns the path."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path
