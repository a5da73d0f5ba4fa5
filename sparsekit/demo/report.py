"""Output of the demo: tables, a plot, result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from sparsekit.bench.models.report import speedup
from sparsekit.checkpoint.card import markdown_table
from sparsekit.io.atomic_file import write_atomically, write_json
from sparsekit.recipes.report.text import as_text, comparison_notes, comparison_table, duration
from sparsekit.wording import counted

_ENGINES = {"torch": "dense, torch", "sparsekit": "sparse, float32", "sparsekit-int8": "sparse, int8"}
#: Recipe time per sentence, relative to dense MiniLM's time for 16 texts of 128 tokens.
_SENTENCE = 0.08


def _speed_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    table = [["MiniLM, ms", *_ENGINES.values()]]
    for texts, tokens in dict.fromkeys((row["batch"], row["tokens"]) for row in rows):
        found = {row["engine"]: row for row in rows if (row["batch"], row["tokens"]) == (texts, tokens)}
        cells = [f"{found[name]['ms']:.1f} ({speedup(found[name], rows) or 1.0:.1f}x)" for name in _ENGINES]
        table.append([f"{counted(texts, 'text')} of {tokens} tokens", *cells])
    return table


def show_speed(rows: Sequence[Mapping[str, Any]], sparsity: float, sentences: int, console: Console) -> None:
    """Print times by input and engine, and how long the accuracy part takes."""
    threads = counted(rows[0]["threads"], "thread")
    noisy = ", noisy: the machine is busy" * any(row["noisy"] for row in rows)
    left = _SENTENCE * sentences * max(row["ms"] for row in rows) / 1e3
    console.print(
        f"{as_text(_speed_table(rows))}\n{sparsity:.0%} zeros imposed, {threads}, medians{noisy}. Next: what a trained "
        f"model keeps of its accuracy, on {sentences:,} film-review sentences. About {duration(left)} left.",
        highlight=False,
    )


def _plot(result: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    rows = [row for row in result["report"]["comparison"]["rows"] if "score" in row]
    accuracies = [(row["name"], 100 * row["score"], f"{row['score']:.1%}") for row in rows]
    charts = {"accuracy on the test split (%)": accuracies}
    for name, *cells in _speed_table(result["speed"])[1:]:
        heights = [float(cell.partition(" ")[0]) for cell in cells]
        charts[f"ms, {name}"] = list(zip(_ENGINES.values(), heights, cells, strict=True))
    for axes, (title, bars) in zip(panels, charts.items(), strict=True):
        drawn = axes.bar([name.replace(" ", "\n", 1) for name, _, _ in bars], [height for _, height, _ in bars])
        axes.bar_label(drawn, [label for _, _, label in bars])
        axes.set(title=title, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    write_atomically(path, partial(figure.savefig, dpi=120))


def show_report(result: Mapping[str, Any], model: Path, out: Path, console: Console) -> None:
    """Print the accuracy table and what to type next; write the files."""
    table, notes = comparison_table(result["report"]["comparison"]), comparison_notes(result["report"])
    write_json(out / "result.json", result)
    parts = (markdown_table(_speed_table(result["speed"])), markdown_table(table), notes)
    write_atomically(out / "table.md", lambda path: path.write_text("\n".join(parts)))
    _plot(result, out / "plot.png")
    console.print(
        f"{as_text(table)}\n{notes}\n\n{duration(result['seconds']['all'])} in all; wrote result.json, table.md, "
        f"plot.png and {model.name} to {out}. Next:\n  sparsekit compress --help      your own model and data\n"
        "  sparsekit bench layers --help  layers of your shapes",
        highlight=False,
        markup=False,
    )
