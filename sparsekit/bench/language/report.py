"""Print the language benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sparsekit.wording import size_text

#: Engines that speeds are compared with, if measured.
_REFERENCES = ("llama.cpp-Q8_0", "llama.cpp-Q4_0")


def times_faster(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], what: str, reference: str) -> float | None:
    """Speed-up of a row over another engine with the same number of threads; None if that was not measured.

    Args:
        row: the row.
        rows: all rows.
        what: "prefill", "decode" or "decode_many".
        reference: name of the other engine.
    """
    speeds: list[float] = [
        other[what]["median"] for other in rows if other["engine"] == reference and other["threads"] == row["threads"]
    ]
    return row[what]["median"] / speeds[0] if speeds else None


def _speed(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], what: str) -> str:
    times = [times_faster(row, rows, what, reference) for reference in _REFERENCES]
    shown = " ".join(f"{value:.2f}x" for value in times if value is not None)
    return f"{row[what]['median']:.0f}" + (f"\n{shown}" if shown else "")


def show(stored: Mapping[str, Any], console: Console) -> None:
    """Print every row."""
    rows, grid = stored["rows"], stored["grid"]
    measured = [name for name in _REFERENCES if any(row["engine"] == name for row in rows)]
    table = Table("threads", "engine", f"prefill {grid['prompt']}", "decode", "four at once", "resident", "on disk")
    for row in rows:
        table.add_row(
            str(row["threads"]),
            row["engine"] + ("" if row["sparsity"] is None else f" {row['sparsity']:.0%}") + "\nnoisy" * row["noisy"],
            *(_speed(row, rows, what) for what in ("prefill", "decode", "decode_many")),
            "" if row["resident_bytes"] is None else size_text(row["resident_bytes"]),
            size_text(row["file_bytes"]),
        )
    console.print(table)
    over = f", and how many times those of {' and '.join(measured)}" if measured else ""
    console.print(f"tokens a second{over}", highlight=False)
    if any(row["noisy"] for row in rows):
        console.print("noisy: quartiles more than 25% apart; close other programs and measure again", style="yellow")
