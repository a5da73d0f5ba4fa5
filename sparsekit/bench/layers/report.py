"""Print and plot the layer benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sparsekit.bench.peer import Installable, is_ours
from sparsekit.bench.summary import (
    Cell,
    Group,
    break_even,
    by_sparsity,
    dense_times,
    groups,
    in_int8,
    medians,
    remarks,
    speedups,
)
from sparsekit.extras import how_to_install
from sparsekit.wording import counted


def usable_engines(
    peers: Mapping[str, Installable], asked: Sequence[str] | None, default: Sequence[str], console: Console
) -> list[str]:
    """Engines of `peers` to measure: the requested ones, or the installed defaults; prints which are missing.

    Raises:
        ValueError: a requested engine is unknown or not installed.
    """
    unknown = sorted(set(asked or ()) - set(peers))
    if unknown:
        raise ValueError(f"engines are {', '.join(peers)}, got {', '.join(unknown)}")
    missing = {name: peers[name].missing for name in asked or default if peers[name].missing}
    text = "; ".join(f"{name} needs {', '.join(modules)}" for name, modules in missing.items())
    if missing and asked:
        raise ValueError(f"not installed: {text}; {how_to_install('peers')}")
    if missing:
        console.print(f"left out: {text}; {how_to_install('peers')}", style="yellow", markup=False)
    return [name for name in asked or default if name not in missing]


def _add_group(table: Table, group: Group, members: Sequence[Mapping[str, Any]]) -> None:
    dense = dense_times(members)
    inputs = f"{counted(group.batch, 'token')}, {counted(group.threads, 'thread')}"
    title = f"{group.out_features} x {group.in_features}, {inputs}"
    for row in members:
        table.add_row(
            title,
            row["engine"] + ("" if row["sparsity"] is None else f" {row['sparsity']:.0%}"),
            f"{row['us']:.1f}",
            f"{row['low_us']:.1f}-{row['high_us']:.1f}{remarks(row)}",
            f"{2e-3 * row['nnz'] * row['batch'] / row['us']:.0f}",
            f"{min(dense) / row['us']:.2f}" if dense else "",
        )
        title = ""
    table.add_section()


def show(stored: Mapping[str, Any], console: Console) -> None:
    """Print every row, the medians over the shapes and the break-even points."""
    rows = stored["rows"]
    table = Table("layer", "engine", "us", "quartiles", "GFLOP/s", "times best dense")
    for group, members in groups(rows).items():
        _add_group(table, group, members)
    console.print(table)
    ours = list(dict.fromkeys(row["engine"] for row in rows if is_ours(row["engine"])))
    for engine in ours:
        _show_medians(speedups(rows, engine), f"{engine} over the best dense float32 engine, median", console)
    for engine in filter(in_int8, ours):
        found = speedups(rows, engine, over_int8=True)
        _show_medians(found, f"{engine} over the best dense int8 engine", console)
    if any(row["noisy"] for row in rows):
        console.print("noisy: quartiles more than 25% apart; close other programs and measure again", style="yellow")


def _show_medians(found: Mapping[Cell, float], title: str, console: Console) -> None:
    if not found:
        return
    headings = (f"{sparsity:.0%}" for sparsity in sorted({cell.sparsity for cell in found}))
    table = Table("threads", "tokens", *headings, "break-even", title=title)
    for (threads, batch), values in by_sparsity(found).items():
        middle = medians(values)
        even = break_even(middle)
        texts = [f"{value:.2f}" for value in middle.values()]
        table.add_row(str(threads), str(batch), *texts, "-" if even is None else f"{even:.0%}")
    console.print(table)


def draw(stored: dict[str, Any], plots: Path, console: Console) -> None:
    """Write the plots into a folder."""
    from sparsekit.bench.layers.plots import plot_roofline, plot_speedup

    plots.mkdir(parents=True, exist_ok=True)
    for name, plot in (("speedup.png", plot_speedup), ("roofline.png", plot_roofline)):
        plot(stored, plots / name)
        console.print(f"wrote {plots / name}")
