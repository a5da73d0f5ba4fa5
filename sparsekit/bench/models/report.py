"""Print the model benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sparsekit.bench.summary import in_int8, remarks
from sparsekit.wording import counted

#: Number of operators to show by name; the rest is summed.
_SHOWN = 6


def speedup(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, over_int8: bool = False) -> float | None:
    """Speed-up of a row over the fastest dense engine, in float32 or int8, on the same input.

    None if there is none; engines with wrong outputs do not count.
    """
    same = ("batch", "tokens", "threads")
    dense = [
        other["ms"]
        for other in rows
        if other["sparsity"] is None
        and not other.get("wrong")
        and in_int8(other["engine"]) == over_int8
        and all(other[name] == row[name] for name in same)
    ]
    return min(dense) / row["ms"] if dense else None


def largest_operators(row: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds by operator, the smallest summed as "other"."""
    items = list(row["operators"].items())
    shown = dict(items[:_SHOWN])
    shown["other"] = sum(ms for _, ms in items[_SHOWN:])
    return shown


def show(stored: Mapping[str, Any], console: Console) -> None:
    """Print every row, and the breakdown by operator of the sparse ones."""
    rows = stored["rows"]
    table = Table("input", "threads", "engine", "ms", "quartiles", "times best dense", "difference")
    for row in rows:
        times = speedup(row, rows)
        table.add_row(
            f"{row['batch']} x {counted(row['tokens'], 'token')}",
            str(row["threads"]),
            row["engine"] + ("" if row["sparsity"] is None else f" {row['sparsity']:.0%}"),
            f"{row['ms']:.2f}",
            f"{row['low_ms']:.2f}-{row['high_ms']:.2f}{remarks(row)}",
            "" if times is None else f"{times:.2f}",
            f"{row['difference']:.0e}",
        )
    console.print(table)
    for row in (row for row in rows if row["operators"]):
        parts = ", ".join(f"{name.removeprefix('aten::')} {ms:.2f}" for name, ms in largest_operators(row).items())
        where = f"{row['batch']} x {counted(row['tokens'], 'token')}, {counted(row['threads'], 'thread')}"
        console.print(f"{where}, {row['sparsity']:.0%}: ms in {parts}", soft_wrap=True)
    if any(row["noisy"] for row in rows):
        console.print("noisy: quartiles more than 25% apart; close other programs and measure again", style="yellow")
