"""Tables of data types and 4x1 blocks: speed, memory, outputs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from layers_tables import median_table
from results_tables import load, machine, percent, source, table

from sparsekit.bench.summary import Cell, in_int8, speedups

#: Engines of the layer benchmark, in the order in which they are shown.
_ENGINES = ("sparsekit", "sparsekit-bfloat16", "sparsekit-int8", "sparsekit-4x1", "sparsekit-int8-4x1")
_RESULT = "layers-dtypes.json"


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


def compared(rows: Sequence[Mapping[str, Any]], engines: Sequence[str], threads: int, *, over_int8: bool) -> str:
    """Medians of engines next to each other."""
    found = {name: _medians(speedups(rows, name, over_int8=over_int8), threads) for name in engines}
    keys = sorted(next(iter(found.values())), key=lambda key: (key[1], key[0]))
    lines = [[f"{s:.0%}", batch, *(f"{found[name][batch, s]:.2f}x" for name in engines)] for batch, s in keys]
    return table(["sparsity", "tokens", *map(_title, engines)], lines)


def _bytes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Packed bytes as a fraction of the dense ones, median over the shapes, by engine and sparsity."""
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
    return table(["dtype", *percent(sparsities)], lines, text_columns=1)


def few_dtypes_block() -> str:
    """Medians of every data type, one thread, and what a packed weight takes."""
    stored = load(_RESULT)
    rows = stored["rows"]
    return (
        f"{compared(rows, _ENGINES, 1, over_int8=False)}\n\n"
        "Speed-up over the best dense engine in float32 (torch, ONNX Runtime, OpenVINO), one thread, median over the "
        "eight shapes, random masks; int8 includes quantizing the inputs. Packed bytes as a fraction of the dense "
        f"float32 weight's:\n\n{_bytes(rows)}\n\n{machine(stored['environment'])} {source(_RESULT)}"
    )


def dtypes_block() -> str:
    """Every data type with one and two threads, over dense float32 and dense int8, and with its range."""
    stored = load(_RESULT)
    rows = stored["rows"]
    int8 = [name for name in _ENGINES if in_int8(name)]
    noisy = sum(row["noisy"] for row in rows)
    parts = [
        f"One thread, over the best dense float32:\n\n{compared(rows, _ENGINES, 1, over_int8=False)}",
        f"Two threads, over the best dense float32:\n\n{compared(rows, _ENGINES, 2, over_int8=False)}",
        f"One thread, int8 over the best dense int8 (ONNX Runtime and torch, dynamic quantization):\n\n"
        f"{compared(rows, int8, 1, over_int8=True)}",
        *(
            f"{_title(name)}, with the range over the shapes:\n\n{median_table(speedups(rows, name))}"
            for name in _ENGINES[1:]
        ),
        f"{noisy} of {len(rows)} timings were noisy. {machine(stored['environment'])} {source(_RESULT)}",
    ]
    return "\n\n".join(parts)


def other_dtypes_block(result: str) -> str:
    """Medians of every data type on another processor, one thread."""
    stored = load(result)
    rows = stored["rows"]
    int8 = [name for name in _ENGINES if in_int8(name)]
    return (
        f"{compared(rows, _ENGINES, 1, over_int8=False)}\n\nint8 over the best dense int8:\n\n"
        f"{compared(rows, int8, 1, over_int8=True)}\n\n{machine(stored['environment'])} {source(result)}"
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
        f"float32: mean (minimum). {source('answers.json')}"
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
        + f"\n\nCosine of the embeddings of {stored['sentences']} film reviews, mean (minimum): of the sparse model to "
        "the same pruned model dense in float32 and dense in int8 (ONNX Runtime), and of these two. all-MiniLM-L6-v2, "
        f"pruned by SparseGPT. {source('answers.json')}"
    )
