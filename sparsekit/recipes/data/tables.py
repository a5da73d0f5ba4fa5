"""Read texts from files: JSONL, CSV, Parquet, plain text, or a folder written by `datasets`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sparsekit.recipes.data.json_lines import read_json, text_lines

if TYPE_CHECKING:
    import datasets

#: Extensions of JSON files, and extensions that `datasets` opens -> its reader.
_JSON = (".jsonl", ".json")
_READERS = {".csv": "csv", ".parquet": "parquet", ".txt": "text"}
#: Columns by name, all of the same length.
Table: TypeAlias = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Rows:
    """The columns of a table that a task uses; missing columns are empty."""

    texts: list[str]
    pairs: list[str]  # the second text of every row
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the progress bars of `datasets`."""
    import datasets

    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()


def _check_text(path: Path) -> None:
    """Refuse files that the CSV and text readers would misread, or reject without a useful message.

    Raises:
        ValueError: the file is empty, not UTF-8, or CSV with a row longer than its header.
    """
    lines = sum(1 for _ in text_lines(path))
    if lines <= (path.suffix == ".csv"):  # a header alone
        raise ValueError(f"{path} has no rows")
    if path.suffix != ".csv":
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            wide = len(next(rows))
            for row in rows:
                if len(row) > wide:  # pandas would use the first columns as an index and shift the others
                    place = f"{path}, line {rows.line_num}"
                    raise ValueError(f"{place}: {len(row)} fields under {wide} names; put texts with commas in quotes")
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: no CSV: {error}") from error


def _dataset(path: Path) -> datasets.Dataset:
    import datasets

    if path.is_dir():
        try:
            table = datasets.load_from_disk(str(path))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} is no folder that datasets saved, or is damaged: {error}") from error
        if not isinstance(table, datasets.Dataset):
            raise ValueError(f"{path} holds several splits ({', '.join(table)}); give the folder of one")
        return table
    kind = _READERS[path.suffix]
    try:
        return datasets.load_dataset(kind, data_files=str(path), split="train")
    except (datasets.exceptions.DatasetGenerationError, ValueError, StopIteration) as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error.__cause__ or error}") from error


def read_table(path: Path) -> Table:
    """The table in a file or folder.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: its extension is unknown, it cannot be read, or it has no rows.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a table of texts")
    if not path.is_dir() and path.suffix not in (*_JSON, *_READERS):
        raise ValueError(f"{path} must end in {', '.join((*_JSON, *_READERS))}, or be a folder that datasets saved")
    if path.suffix in (".csv", ".txt") and not path.is_dir():
        _check_text(path)
    if path.suffix in _JSON and not path.is_dir():
        table: Table = read_json(path)
    else:
        with _without_bars():
            found = _dataset(path)
        table = {name: found[name] for name in found.column_names}
    if not any(len(column) for column in table.values()):
        raise ValueError(f"{path} has no rows")
    return table


def _column(table: Table, name: str | None, path: Path, *, optional: bool = False) -> list[Any]:
    if name is None or (optional and name not in table):
        return []
    if name not in table:
        raise ValueError(f"{path} has no column {name!r}, only {', '.join(table)}; set it under data:")
    return list(table[name])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def read_rows(
    path: Path, text: str, pair: str | None = None, label: str | None = None, *, only_text: bool = False
) -> Rows:
    """The rows of a table in a file: `read_table`, then `rows_of`."""
    return rows_of(read_table(path), path, text, pair, label, only_text=only_text)


def rows_of(
    table: Table, path: Path, text: str, pair: str | None = None, label: str | None = None, *, only_text: bool = False
) -> Rows:
    """Select the columns of a table by name, without rows that have no text.

    Args:
        table: the table.
        path: file it was read from, for messages.
        text: name of the column of texts.
        pair: name of the column of second texts, or None.
        label: name of the column of labels, or None.
        only_text: whether the table may lack the other two columns.

    Raises:
        ValueError: a column is missing, or no row has text.
    """
    texts = _column(table, text, path)
    pairs = _column(table, pair, path, optional=only_text)
    labels = _column(table, label, path, optional=only_text)
    kept = [i for i in range(len(texts)) if all(_is_text(column[i]) for column in (texts, pairs) if column)]
    if not kept:
        raise ValueError(f"no row of {path} has text in its column {text!r}")
    return Rows([texts[i] for i in kept], [pairs[i] for i in kept if pairs], [labels[i] for i in kept if labels])
