"""Tables of language models, made from the JSON files that `sparsekit bench language` wrote."""

from __future__ import annotations

from typing import Any

from results_tables import load, machine, source, table

from sparsekit.bench.language.engines import SEQUENCES
from sparsekit.bench.language.report import times_faster
from sparsekit.wording import size_text

_Q8, _Q4 = "llama.cpp-Q8_0", "llama.cpp-Q4_0"


def _name(row: dict[str, Any]) -> str:
    return row["engine"] + ("" if row["sparsity"] is None else f" {row['sparsity']:.0%}")


def _speed(row: dict[str, Any], rows: list[dict[str, Any]], what: str) -> str:
    """Tokens per second, and for sparsekit the ratio to llama.cpp in both types."""
    shown = f"{row[what]['median']:.0f}" + "*" * row["noisy"]
    if row["sparsity"] is None:
        return shown
    times = (times_faster(row, rows, what, reference) for reference in (_Q8, _Q4))
    return f"{shown} ({' / '.join(f'{value:.2f}x' for value in times if value is not None)})"


def language_block(result: str) -> str:
    """Every engine on one processor."""
    stored = load(result)
    rows, grid = stored["rows"], stored["grid"]
    lines = [
        [
            _name(row),
            row["threads"],
            *(_speed(row, rows, what) for what in ("prefill", "decode", "decode_many")),
            size_text(row["resident_bytes"]),
            size_text(row["file_bytes"]),
        ]
        for row in sorted(rows, key=lambda row: row["threads"])
    ]
    head = [
        "engine",
        "threads",
        f"prefill of {grid['prompt']}",
        "decode",
        f"{SEQUENCES} at once",
        "resident",
        "on disk",
    ]
    noisy = " \\*: noisy." if any(row["noisy"] for row in rows) else ""
    return (
        table(head, lines, text_columns=1)
        + f"\n\nTokens a second of {stored['model']}, pruned by magnitude (times are those of a pruned model, what it "
        f"writes is not), and times llama.cpp's Q8_0 / Q4_0 of the dense model. Every engine in a process of its own, "
        f"rounds over all of them in shuffled order, medians of {grid['rounds']}.{noisy} "
        f"{machine(stored['environment'])} {source(result)}"
    )
