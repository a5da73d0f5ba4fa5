"""Tables of what smaller weights and blocks of 4x1 give: speed, memory, answers."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tables import load, machine, median_table, table

from sparsekit.bench.summary import Cell, in_int8, speedups

#: Engines of the layer benchmark, in the order in which they are shown.
_ENGINES = ("sparsekit", "sparsekit-bfloat16", "sparsekit-int8", "sparsekit-4x1", "sparsekit-int8-4x1")
_RESULT = "layers-values.json"


def _title(engine: str) -> str:
    """What the engine is called in a heading."""
    parts = engine.split("-")[1:]
    return " ".join(parts if parts and parts[0] != "4x1" else ["float32", *parts])


def _medians(found: Mapping[Cell, float], threads: int) -> dict[tuple[int, float], float]:
    """Median over the shapes by number of tokens and sparsity."""
    by_key: dict[tuple[int, float], list[float]] = defaultdict(list)
    for cell, times in found.items():
        if cell.threads == threads:
            by_key[cell.batch, cell.sparsity].append(times)
    return {key: statistics.median(times) for key, times in by_key.items()}


def _compared(rows: Sequence[Mapping[str, Any]], engines: Sequence[str], threads: int, *, over_int8: bool) -> str:
    """Medians of engines next to each other."""
    found = {name: _medians(speedups(rows, name, over_int8=over_int8), threads) for name in engines}
    keys = sorted(next(iter(found.values())), key=lambda key: (key[1], key[0]))
    lines = [[f"{s:.0%}", batch, *(f"{found[name][batch, s]:.2f}x" for name in engines)] for batch, s in keys]
    return table(["sparsity", "tokens", *map(_title, engines)], lines)


def _bytes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Packed bytes as a part of the dense ones, median over the shapes, by engine and sparsity."""
    parts: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        if row["engine"] in _ENGINES:
            dense = 4 * row["out_features"] * row["in_features"]
            parts[row["engine"], row["sparsity"]].append(row["weight_bytes"] / dense)
    sparsities = sorted({sparsity for _, sparsity in parts})
    lines = [
        [_title(name), *(f"{statistics.median(parts[name, sparsity]):.3f}" for sparsity in sparsities)]
        for name in _ENGINES
    ]
    return table(["dtype", *(f"{sparsity:.0%}" for sparsity in sparsities)], lines, text_columns=1)


def few_values_block() -> str:
    """Medians of all kinds of weight, one thread."""
    stored = load(_RESULT)
    rows = stored["rows"]
    return (
        f"{_compared(rows, _ENGINES, 1, over_int8=False)}\n\n"
        "Times faster than the best dense engine in float32 (torch, ONNX Runtime, OpenVINO), one thread, median over "
        "the eight shapes, random masks, interleaved in one process; int8 includes quantising the inputs. Bytes of the "
        f"dense weight:\n\n{_bytes(rows)}\n\n{machine(stored['environment'])} Stored in `benchmarks/results/{_RESULT}`."
    )


def values_block() -> str:
    """The same for two threads and over dense int8, and every kind with its range."""
    stored = load(_RESULT)
    rows = stored["rows"]
    int8 = [name for name in _ENGINES if in_int8(name)]
    noisy = sum(row["noisy"] for row in rows)
    parts = [
        f"One thread, over the best dense float32:\n\n{_compared(rows, _ENGINES, 1, over_int8=False)}",
        f"Two threads, over the best dense float32:\n\n{_compared(rows, _ENGINES, 2, over_int8=False)}",
        f"One thread, int8 over the best dense int8 (ONNX Runtime and torch, dynamic quantisation):\n\n"
        f"{_compared(rows, int8, 1, over_int8=True)}",
        *(
            f"{_title(name)}, with the range over the shapes:\n\n{median_table(speedups(rows, name))}"
            for name in _ENGINES[1:]
        ),
    ]
    return (
        "\n\n".join(parts)
        + f"\n\n{noisy} of {len(rows)} timings were noisy. {machine(stored['environment'])} Stored in "
        f"`results/{_RESULT}`."
    )


def other_values_block(result: str) -> str:
    """Medians of all kinds of weight on another machine, one thread."""
    stored = load(result)
    rows = stored["rows"]
    int8 = [name for name in _ENGINES if in_int8(name)]
    return (
        f"{_compared(rows, _ENGINES, 1, over_int8=False)}\n\nint8 over the best dense int8:\n\n"
        f"{_compared(rows, int8, 1, over_int8=True)}\n\n{machine(stored['environment'])} Stored in "
        f"`results/{result}`."
    )


def _pair(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.4f} ({found['least']:.4f})"


def few_answers_block() -> str:
    """Cosines of sentence embeddings, int8 alone."""
    stored = load("answers.json")
    lines = [
        [row["structure"], f"{row['sparsity']:.0%}", _pair(row["to_float32"]), _pair(row["dense_int8_to_float32"])]
        for row in stored["rows"]
        if row["dtype"] == "int8"
    ]
    return (
        table(["mask", "sparsity", "sparsekit in int8", "ONNX Runtime in int8"], lines, text_columns=1)
        + f"\n\nCosine of the embeddings of {stored['sentences']} film reviews to those of the same pruned MiniLM in "
        "float32, mean (least). Stored in `benchmarks/results/answers.json`."
    )


def answers_block() -> str:
    """Cosines of sentence embeddings."""
    stored = load("answers.json")
    lines = [
        [
            f"{row['sparsity']:.0%}",
            row["structure"],
            row["dtype"],
            f"{row['dense_bytes'] / row['weight_bytes']:.1f}x",
            _pair(row["to_float32"]),
            _pair(row["to_dense_int8"]),
            _pair(row["dense_int8_to_float32"]),
        ]
        for row in stored["rows"]
    ]
    heading = ["sparsity", "mask", "dtype", "smaller", "to float32", "to dense int8", "dense int8 to float32"]
    return (
        table(heading, lines, text_columns=3)
        + f"\n\nCosine of the embeddings of {stored['sentences']} film reviews, mean (least): of the sparse model to "
        "the same pruned model dense in float32 and dense in int8 (ONNX Runtime), and of these two. all-MiniLM-L6-v2, "
        "pruned by SparseGPT. Stored in `results/answers.json`; `benchmarks/answers.py` makes it."
    )
