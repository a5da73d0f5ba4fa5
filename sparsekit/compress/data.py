"""Texts from files: JSONL, CSV, Parquet, plain text, or a folder that `datasets` saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

#: Ending of a file -> the reader of `datasets` that opens it.
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}


@dataclass(frozen=True)
class Rows:
    """What a task wants of a table, column by column; columns that it does not have are empty."""

    texts: list[str]
    pairs: list[str]  # the second text of every row
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.texts)


def read_table(path: Path) -> datasets.Dataset:
    """The table in a file or folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its ending is unknown, it cannot be read, or it has no rows.
    """
    import datasets

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        table = datasets.load_from_disk(str(path))
        if not isinstance(table, datasets.Dataset):
            raise ValueError(f"{path} holds several splits ({', '.join(table)}); give the folder of one")
    elif path.suffix not in READERS:
        raise ValueError(f"{path} must end in {', '.join(READERS)}, or be a folder that datasets saved")
    else:
        try:
            table = datasets.load_dataset(READERS[path.suffix], data_files=str(path), split="train")
        except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
            if not path.read_bytes().strip() or "no data" in str(error):
                raise ValueError(f"{path} has no rows") from error
            raise ValueError(f"{path} cannot be read as {READERS[path.suffix]}: {error.__cause__ or error}") from error
    if not len(table):
        raise ValueError(f"{path} has no rows")
    return table


def _column(table: datasets.Dataset, name: str | None, path: Path, *, optional: bool = False) -> list[Any]:
    if name is None or (optional and name not in table.column_names):
        return []
    if name not in table.column_names:
        raise ValueError(f"{path} has no column {name!r}, only {', '.join(table.column_names)}; set it under data:")
    return list(table[name])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def read_rows(
    path: Path, text: str, pair: str | None = None, label: str | None = None, *, only_text: bool = False
) -> Rows:
    """The columns of a table by their names; rows without text are left out.

    Args:
        path: the table.
        text: name of the column of texts.
        pair: of the second texts, None where there are none.
        label: of the labels, None where there are none.
        only_text: whether the table may lack the other two.

    Raises:
        FileNotFoundError, ValueError: as `read_table`; also when a column is missing or no row has text.
    """
    table = read_table(path)
    texts = _column(table, text, path)
    pairs = _column(table, pair, path, optional=only_text)
    labels = _column(table, label, path, optional=only_text)
    kept = [i for i in range(len(texts)) if all(_is_text(column[i]) for column in (texts, pairs) if column)]
    if not kept:
        raise ValueError(f"no row of {path} has text in its column {text!r}")
    return Rows([texts[i] for i in kept], [pairs[i] for i in kept if pairs], [labels[i] for i in kept if labels])
