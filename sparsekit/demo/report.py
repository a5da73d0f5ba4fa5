"""What the demo leaves behind: a table, a plot, result.json, and what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sparsekit.io.atomic_file import write_atomically

#: Name of a model in the results -> how the table and the plot call it.
TITLES = {
    "teacher": "dense teacher",
    "dense_self": "sparse student, dense torch",
    "sparse": "sparse student, sparsekit",
    "sparse_int8": "the same, int8",
}
#: The same models' entries for accuracy and size.
MODELS = ("teacher", "student_dense", "student", "student_int8")
#: How many of them, the last ones, run on sparsekit's kernels.
_SPARSE = 2

NEXT_STEPS = """\
What next?
  sparsekit bench layers --sparsity 0.9 --batch 1 --batch 64   your machine, layer by layer
  sparsekit demo --sparsity 0.8                                another trade of accuracy for speed
Your own model, pruned already (zeros in its linear layers):
  import sparsekit
  sparsekit.convert(model)                 # swaps nn.Linear for SparseLinear, in place
  print(sparsekit.conversion_report(model))
Your own model and data, dense still:
  from sparsekit.pruning import prune_sparsegpt, finalize
  prune_sparsegpt(model, 0.8, batches)      # a few hundred samples; no training
  ...                                      # fine-tune: the masks stay
  finalize(model); sparsekit.convert(model)
"""


def _milliseconds(row: dict[str, Any], model: str) -> float:
    return float(row["seconds"][model]["median"]) * 1e3


def _rate(row: dict[str, Any], model: str) -> float:
    sentences = int(row["kind"].rpartition(" ")[2]) if row["kind"].startswith("batch") else 1
    return sentences / float(row["seconds"][model]["median"])


def _threads(row: dict[str, Any]) -> str:
    return f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"


def _speed_cells(row: dict[str, Any]) -> tuple[str, list[str]]:
    """Heading and one cell a model, the sparse ones with their gain over their dense self."""
    single = not row["kind"].startswith("batch")
    cells = [f"{_milliseconds(row, m):.2f}" if single else f"{_rate(row, m):.0f}" for m in TITLES]
    for place, model in list(enumerate(TITLES))[-_SPARSE:]:
        cells[place] += f" ({row['seconds']['dense_self']['median'] / row['seconds'][model]['median']:.2f}x)"
    return (f"ms, {row['kind']}" if single else f"sentences/s, {row['kind']}") + f", {_threads(row)}", cells


def table(result: dict[str, Any]) -> Table:
    """The figures of a result, one column a model."""
    shown = Table("", *TITLES.values(), title=f"MiniLM on movie reviews, {result['sparsity']:.0%} sparse")
    for key, label in (("accuracy", "accuracy, test split"), ("accuracy_far", "accuracy, other source (IMDB)")):
        shown.add_row(label, *(f"{result[model][key]:.1%}" for model in MODELS))
    sizes = [result[model]["linear_bytes"] for model in MODELS]
    cells = [f"{size / 1e6:.1f} MB" for size in sizes]
    for place in range(len(cells) - _SPARSE, len(cells)):
        cells[place] += f" ({sizes[1] / sizes[place]:.1f}x smaller)"
    shown.add_row("linear weights in RAM", *cells)
    for row in result["speed"]:
        heading, speeds = _speed_cells(row)
        shown.add_row(heading, *speeds)
    return shown


def markdown(result: dict[str, Any]) -> str:
    """The same table for a README."""
    shown = table(result)
    columns = [list(column.cells) for column in shown.columns]
    heads = [str(column.header) for column in shown.columns]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in zip(*columns, strict=True)]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Accuracy and speed of the models as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = ["#9aa5b1", "#5b7c99", "#d9622b", "#a8321d"]
    width = 0.84 / len(TITLES)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    names = [title.replace(", ", "\n") for title in TITLES.values()]
    scores = [100 * result[key]["accuracy"] for key in MODELS]
    left.bar_label(left.bar(names, scores, color=colours), fmt="%.1f")
    left.set(title="accuracy on the test split (%)", ylim=(50, 100))
    for axis, kind in ((middle, "one sentence"), (right, "batch")):
        rows = [row for row in result["speed"] if row["kind"].startswith(kind)]
        measure = _milliseconds if kind == "one sentence" else _rate
        for place, (model, title) in enumerate(TITLES.items()):
            positions = [index + (place - (len(TITLES) - 1) / 2) * width for index in range(len(rows))]
            heights = [measure(row, model) for row in rows]
            bars = axis.bar(positions, heights, 0.93 * width, label=title, color=colours[place])
            axis.bar_label(bars, fmt="%.1f" if kind == "one sentence" else "%.0f", fontsize=8)
        axis.set_xticks(range(len(rows)), [_threads(row) for row in rows])
    middle.set(title="one sentence (ms, lower is better)")
    right.set(title="batches of 32 (sentences/s, higher is better)")
    right.legend(fontsize=8)
    left.tick_params(axis="x", labelsize=8)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"MiniLM on movie reviews, {result['sparsity']:.0%} of the linear weights pruned")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120))
    plt.close(figure)


def show(result: dict[str, Any], out: Path, console: Console) -> None:
    """Print the table, where the files are, and the next commands."""
    console.print(table(result))
    total = sum(result["stage_seconds"].values())
    console.print(f"{total:.0f} s in all; wrote {out / 'result.json'}, {out / 'table.md'} and {out / 'plot.png'}\n")
    console.print(NEXT_STEPS, highlight=False, markup=False)
