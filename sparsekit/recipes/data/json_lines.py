"""Rows from JSON: one object per line, or one list of objects; errors name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every nonblank line of a UTF-8 file.

    Raises:
        ValueError: a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: byte 0x{line[error.start]:02x} is no UTF-8; save the file as UTF-8"
                ) from error
            if text.strip():
                yield number, text


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number; use null")


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError(f"{place}: brackets are nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{place}: no JSON: {error}") from error


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Location and value of every row."""
    lines = list(text_lines(path))
    if lines and lines[0][1].lstrip().startswith("["):
        whole = _parsed("".join(text for _, text in lines), str(path))
        yield from ((f"{path}, row {number}", value) for number, value in enumerate(whole, 1))
        return
    for number, text in lines:
        place = f"{path}, line {number}"
        yield place, _parsed(text, place)


def read_json(path: Path) -> dict[str, list[Any]]:
    """Columns of a JSON file by name, with None for missing values.

    Raises:
        ValueError: the file is not UTF-8 or not JSON, or a row is not an object.
    """
    columns: dict[str, list[Any]] = {}
    for count, (place, row) in enumerate(_values(path)):
        if not isinstance(row, dict):
            raise ValueError(f'{place}: expected an object such as {{"text": "..."}}, got a {type(row).__name__}')
        for name, value in row.items():
            columns.setdefault(name, [None] * count).append(value)
        for column in columns.values():
            column.extend([None] * (count + 1 - len(column)))
    return columns
