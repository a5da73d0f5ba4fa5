"""Text output of a run: a line for every finished stage, and the final table that compares dense and compressed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sparsekit.recipes.stages import STAGES
from sparsekit.wording import counted, figure_text

_WIDTH = 80


def score_words(scores: Mapping[str, Any]) -> list[str]:
    """Scores with their intervals, such as "accuracy 0.912 (0.899 to 0.924)"."""
    ends = scores.get("intervals", {})
    words = []
    for name, value in scores.items():
        if name != "intervals":
            within = f" ({ends[name][0]:.4g} to {ends[name][1]:.4g})" if name in ends else ""
            words.append(f"{name} {value:.4g}{within}")
    return words


def _words(name: str, value: Any) -> str:
    name = name.replace("_", " ")
    if name.startswith("bytes"):
        return f"{value / 1e6:.4g} MB {name.removeprefix('bytes ')}"
    if isinstance(value, list):
        return f"{name} {len(value)}"
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in words."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def stage_line(row: Mapping[str, Any], seconds_left: float | None = None) -> str:
    """Report of a stage, wrapped to 80 columns, and an estimate of the time left."""
    if "intervals" in row:
        told = score_words({name: value for name, value in row.items() if name not in ("stage", "seconds")})
    else:
        left_out = ("stage", "seconds", "plot")
        told = [_words(name, value) for name, value in row.items() if name not in left_out and value != []]
    text = f"{row['stage']} ({duration(row['seconds'])}): {', '.join(told) or 'done'}"
    text += "" if seconds_left is None else f"; about {duration(seconds_left)} left"
    return textwrap.fill(text, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def model_after(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name of the model after these stages: the last one that changed it, with its number if ambiguous.

    >>> distilled, converted = {"stage": "1-distill"}, {"stage": "2-convert", "dtype": "int8", "embeddings": "float32"}
    >>> model_after([distilled, {**converted, "converted": 36}, {"stage": "3-evaluate"}])
    'after int8'
    >>> model_after([distilled, {**converted, "converted": 0}])
    'after convert, all layers dense'
    """
    kinds = [(STAGES[row["stage"].partition("-")[2]], row) for row in rows]
    changed = [(kind.model_after(row), row) for kind, row in kinds if kind.settings.changes_model]
    if not changed:
        return "as given"
    name, row = changed[-1]
    repeated = [other for other, _ in changed].count(name) > 1
    return f"after {name}" + (f" (stage {row['stage'].partition('-')[0]})" if repeated else "")


#: Column -> key of a row.
_COLUMNS = {"ms/text": "one_text_ms", "texts/s": "texts_per_second", "MB disk": "folder_mb", "MB RAM": "memory_mb"}


def _quality(row: Mapping[str, Any]) -> str:
    if "score" not in row:
        return ""
    ends = row.get("interval")
    return f"{row['score']:.3g}" + (f" ({ends[0]:.3g}-{ends[1]:.3g})" if ends else "")


def comparison_table(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table, column names first."""
    score = comparison["score"]
    table = [["", *([f"{score} (95%)"] if score else []), *_COLUMNS]]
    for row in comparison["rows"]:
        figures = [figure_text(row[key]) if key in row else "" for key in _COLUMNS.values()]
        table.append([row["name"], *([_quality(row)] if score else []), *figures])
    return table


def as_text(table: Sequence[Sequence[str]]) -> str:
    """Align a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)


def comparison_notes(report: Mapping[str, Any]) -> str:
    """How the figures in the table were measured, in a few sentences."""
    comparison, machine = report["comparison"], report["environment"]
    threads = counted(comparison["threads"], "thread")
    notes = [
        f"Measured on {machine['cpu']} on {threads}, models interleaved, texts of "
        f"{comparison['tokens_of_a_text']} tokens; texts/s in batches of {comparison['texts_in_a_batch']}.",
        "Disk: the folder's weight files; RAM: weights and buffers of the loaded model.",
    ]
    if comparison["score"]:
        notes.insert(0, f"Intervals: {comparison['interval']}.")
    if any(row.get("noisy") for row in comparison["rows"]):
        notes.append("The machine was busy: times are noisy.")
    return " ".join(notes)
