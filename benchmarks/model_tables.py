"""Tables of whole encoders, made from the JSON files that `sparsekit bench model` wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from results_tables import load, machine, source, table

from sparsekit.bench.models.report import largest_operators, speedup
from sparsekit.bench.processors import processor
from sparsekit.bench.summary import in_int8

#: A file for each processor.
_PROCESSORS = ("model.json", "model-zen4.json", "model-xeon.json", "model-zen3.json")
#: Engines of the short table -> what its columns are called.
_SHORT = {
    "sparsekit": "float32",
    "sparsekit-int8-4x1": "int8 4x1",
    "sparsekit-engine": "engine",
    "sparsekit-engine-4x1": "engine 4x1",
}

_SHORT_INPUTS = ("1 x 16 tokens", "16 x 128 tokens")
#: Data type -> dense engines that a model without zeros is compared with.
_DENSE = {
    "float32": ("torch", "onnxruntime", "openvino", "ctranslate2"),
    "int8": ("onnxruntime-int8", "openvino-int8", "ctranslate2-int8"),
}


def _input(row: dict[str, Any]) -> str:
    return f"{row['batch']} x {row['tokens']} tokens"


def _inputs(rows: list[dict[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """Rows by input and number of threads, few threads first."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["threads"], _input(row)].append(row)
    return [(text, threads, members) for (threads, text), members in sorted(found.items())]


def _best_dense(members: list[dict[str, Any]]) -> list[tuple[float, str]]:
    """Milliseconds and name of the fastest dense engine, in float32 and in int8."""
    dense = sorted((row["ms"], row["engine"]) for row in members if row["sparsity"] is None and not row.get("wrong"))
    return [next(one for one in dense if in_int8(one[1]) == int8) for int8 in (False, True)]


def _sparsities(rows: list[dict[str, Any]]) -> list[float]:
    """Those of pruned models."""
    return sorted({row["sparsity"] for row in rows if row["sparsity"]})


def _cells(rows: list[dict[str, Any]], members: list[dict[str, Any]], engines: Sequence[str]) -> Iterator[str]:
    """Milliseconds and speed-up of each engine, the lower sparsity first."""
    sparse = {(row["engine"], row["sparsity"]): row for row in members if row["sparsity"] is not None}
    for name in engines:
        shown = [sparse[name, sparsity] for sparsity in _sparsities(rows)]
        yield " / ".join(f"{row['ms']:.1f} ({speedup(row, rows):.2f}x)" for row in shown)


def model_block(result: str) -> str:
    """The fastest dense engine and ours on each input, on one processor."""
    stored = load(result)
    rows = stored["rows"]
    ours = list(dict.fromkeys(row["engine"] for row in rows if row["sparsity"] is not None))
    lines = [
        [text, threads, *(f"{ms:.1f} {engine}" for ms, engine in _best_dense(members)), *_cells(rows, members, ours)]
        for text, threads, members in _inputs(rows)
    ]
    parts = " / ".join(f"{sparsity:.0%}" for sparsity in _sparsities(rows))
    return (
        table(["input", "threads", "best dense", "best dense int8", *ours], lines, text_columns=1)
        + f"\n\nMilliseconds of {stored['model']} with all linear layers of the encoder pruned by magnitude to "
        f"{parts}, and speed-up over the best dense engine in float32. Medians, interleaved. "
        f"{machine(stored['environment'])} {source(result)}"
    )


def _short_line(stored: dict[str, Any], text: str, members: list[dict[str, Any]]) -> list[str]:
    rows = stored["rows"]
    dense = [f"{ms:.1f}" for ms, _ in _best_dense(members)]
    sparse = {(row["engine"], row["sparsity"]): row for row in members}
    measured = {name for name, _ in sparse}
    cells = [
        " / ".join(f"{speedup(sparse[name, s], rows):.1f}x" for s in _sparsities(rows)) if name in measured else "-"
        for name in _SHORT
    ]
    return [processor(stored["environment"]), text, *dense, *cells]


def models_block() -> str:
    """Every processor, one thread: dense times and sparse speed-ups."""
    results = [load(name) for name in _PROCESSORS]
    lines = [
        _short_line(stored, text, members)
        for stored in results
        for text, threads, members in _inputs(stored["rows"])
        if threads == 1 and text in _SHORT_INPUTS
    ]
    parts = " / ".join(f"{sparsity:.0%}" for sparsity in _sparsities(results[0]["rows"]))
    heading = ["processor", "input", "dense ms", "dense int8 ms", *_SHORT.values()]
    return (
        table(heading, lines, text_columns=2)
        + f"\n\n{results[0]['model']}, linear layers {parts} sparse, one thread; dense: the fastest of torch, ONNX "
        f"Runtime, OpenVINO and, on Zen 3, CTranslate2. {source(*_PROCESSORS)}"
    )


def dense_block(result: str) -> str:
    """The engine on a model without zeros, beside the dense engines."""
    stored = load(result)
    lines = []
    for text, threads, members in _inputs(stored["rows"]):
        ms = {row["engine"]: row["ms"] for row in members if not row["sparsity"]}
        cells = []
        for dtype, ours in (("float32", "sparsekit-engine"), ("int8", "sparsekit-engine-int8")):
            others = {name: ms[name] for name in _DENSE[dtype]}
            cells += [f"{ms[ours]:.1f}", *(f"{other:.1f} ({other / ms[ours]:.2f}x)" for other in others.values())]
        lines.append([text, threads, *cells])
    heading = [f"{name} {dtype}" for dtype, names in _DENSE.items() for name in ("engine", *names)]
    return (
        table(["input", "threads", *(name.replace("-int8 int8", " int8") for name in heading)], lines, text_columns=1)
        + f"\n\nMilliseconds of {stored['model']} unpruned, and how many times faster the engine is. Medians, "
        f"interleaved. {machine(stored['environment'])} {source(result)}"
    )


def operators_block() -> str:
    """Breakdown of the converted MiniLM's time by operator."""
    stored = load("model.json")
    rows = [row for row in stored["rows"] if row["operators"]]
    lines = []
    for row in sorted(rows, key=lambda row: (row["threads"], row["batch"], row["sparsity"])):
        parts = ", ".join(f"{name.removeprefix('aten::')} {ms:.2f}" for name, ms in largest_operators(row).items())
        lines.append([_input(row), row["threads"], row["engine"], f"{row['sparsity']:.0%}", parts])
    heading = ["input", "threads", "engine", "sparsity", "milliseconds in"]
    return f"{table(heading, lines, text_columns=5)}\n\n{machine(stored['environment'])} {source('model.json')}"
