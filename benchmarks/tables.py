"""Tables of README.md and benchmarks/README.md, made from the JSON files under benchmarks/results."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparsekit.bench.model_report import largest_operators, speedup
from sparsekit.bench.summary import Group, break_even, by_sparsity, groups, in_int8, medians, speedups
from sparsekit.demo.report import markdown

RESULTS = Path(__file__).parent / "results"
#: Numbers of tokens in the README's own table; benchmarks/README.md has all.
_FEW = (1, 16, 128, 512, 2048)


def load(name: str) -> dict[str, Any]:
    """A committed result."""
    loaded: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return loaded


def machine(environment: dict[str, Any]) -> str:
    """Where something was measured."""
    packages = environment["packages"]
    return (
        f"{environment['cpu']}, {environment['processors']} processors, {environment['isa']} kernels, "
        f"torch {packages['torch']}, Python {environment['python']}."
    )


def demo_block() -> str:
    """The table that the demo printed."""
    result = load("demo.json")
    seconds = sum(result["stage_seconds"].values())
    before = result["pruned_accuracy_before_distillation"]
    return (
        f"{markdown(result)}\n\n"
        f"`make demo`, {seconds:.0f} seconds after the install, {result['train_sentences']:,} sentences to train on, "
        f"{result['test_sentences']:,} others to test on; after pruning and before it learned from its teacher, the "
        f"student was at {before:.1%}. {machine(result['environment'])} Stored in `benchmarks/results/demo.json`."
    )


def seeds_block() -> str:
    """Accuracy of the demo's models over seeds."""
    lines = [
        "| seed | sparsity | teacher | student | difference | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for path in sorted(RESULTS.glob("demo*.json")):
        result = json.loads(path.read_text())
        teacher, student = result["teacher"]["accuracy"], result["student"]["accuracy"]
        lines.append(
            f"| {result['settings']['seed']} | {result['sparsity']:.0%} | {teacher:.1%} | {student:.1%} "
            f"| {100 * (student - teacher):+.1f} points | {sum(result['stage_seconds'].values()):.0f} |"
        )
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def _packed_sizes(rows: list[dict[str, Any]]) -> str:
    """Bytes of packed weights as a fraction of the dense ones, median over the shapes."""
    ratios: dict[float, list[float]] = {}
    for row in rows:
        if row["engine"] == "sparsekit":
            dense = 4 * row["out_features"] * row["in_features"]
            ratios.setdefault(row["sparsity"], []).append(row["weight_bytes"] / dense)
    return ", ".join(f"{statistics.median(ratios[key]):.2f} at {key:.0%}" for key in sorted(ratios))


def table(heading: Sequence[str], lines: Iterable[Sequence[Any]], text_columns: int = 0) -> str:
    """A Markdown table; the first `text_columns` columns are text, the others numbers."""
    rule = ["---" if i < text_columns else "---:" for i in range(len(heading))]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (heading, rule, *lines))


def median_table(found: dict[Any, float], batches: Sequence[int] | None = None) -> str:
    """Speed-ups by threads, batch and sparsity: median over the shapes, and the range."""
    sparsities = sorted({cell.sparsity for cell in found})
    lines = []
    for (threads, batch), values in by_sparsity(found).items():
        if batches is None or batch in batches:
            even = break_even(medians(values))
            lines.append([threads, batch, *map(_cell, values.values()), "-" if even is None else f"{even:.0%}"])
    heading = ["threads", "tokens", *(f"{sparsity:.0%}" for sparsity in sparsities), "pays from"]
    return table(heading, lines)


def _layers_text(stored: dict[str, Any]) -> str:
    shapes = sorted({(row["out_features"], row["in_features"]) for row in stored["rows"]})
    noisy = sum(row["noisy"] for row in stored["rows"])
    packages = stored["environment"]["packages"]
    return (
        f"Median over the shapes {', '.join(f'{a}x{b}' for a, b in shapes)} and the range, times faster than the "
        f"fastest of torch, ONNX Runtime {packages['onnxruntime']} and OpenVINO {packages['openvino']} for that cell, "
        f"random masks, all in one process, interleaved, outputs bound where the engine can; {noisy} of "
        f"{len(stored['rows'])} timings were noisy. A packed weight takes this part of the dense one's bytes: "
        f"{_packed_sizes(stored['rows'])}. {machine(stored['environment'])} Stored in "
        "`benchmarks/results/layers.json`; `make bench` measures it anew."
    )


def other_layers_block(name: str) -> str:
    """The same on another processor, with the cells that are slower than dense."""
    stored = load(name)
    found = speedups(stored["rows"])
    noisy = sum(row["noisy"] for row in stored["rows"])
    slow = defaultdict(list)
    for cell, times in sorted(found.items()):
        if times < 0.95:
            slow[cell.sparsity].append(cell.batch)
    counts = "; ".join(
        f"{len(batches)} at {sparsity:.0%} ({', '.join(map(str, sorted(set(batches))))} tokens)"
        for sparsity, batches in sorted(slow.items())
    )
    return (
        f"{median_table(found)}\n\nOf {len(found)} cells, these are slower than 0.95 of the best dense engine: "
        f"{counts}. {noisy} of {len(stored['rows'])} timings were noisy. {machine(stored['environment'])} Stored in "
        f"`results/{name}`."
    )


def layers_block() -> str:
    """Speed-up over the best dense engine, every number of tokens."""
    stored = load("layers.json")
    return f"{median_table(speedups(stored['rows']))}\n\n{_layers_text(stored)}"


def few_layers_block() -> str:
    """Speed-up over the best dense engine, a few numbers of tokens."""
    stored = load("layers.json")
    return f"{median_table(speedups(stored['rows']), _FEW)}\n\n{_layers_text(stored)}"


def masks_block() -> str:
    """The same for the layers of MiniLM, pruned by magnitude."""
    stored = load("layers-minilm.json")
    return (
        f"{median_table(speedups(stored['rows']))}\n\nThe layers of MiniLM with their smallest weights set to zero: "
        f"bytes of the dense weight {_packed_sizes(stored['rows'])}. Stored in `results/layers-minilm.json`."
    )


def avx2_block() -> str:
    """The same with AVX2 alone, against torch with AVX2 forced."""
    stored = load("layers-avx2.json")
    return (
        f"{median_table(speedups(stored['rows']))}\n\nAll eight shapes, `SPARSEKIT_ISA=avx2` against torch with "
        "`MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2`; ONNX Runtime and OpenVINO cannot be told. Stored in "
        "`results/layers-avx2.json`."
    )


def engines_block() -> str:
    """How many times faster sparsekit is than other sparse engines: median over shapes."""
    rows = load("layers-sparse-engines.json")["rows"]
    times: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, members in groups(rows).items():
        mine = {row["sparsity"]: row["us"] for row in members if row["engine"] == "sparsekit"}
        for row in members:
            if row["engine"] != "sparsekit" and row["sparsity"] is not None:
                times[row["engine"], group.batch][row["sparsity"]].append(row["us"] / mine[row["sparsity"]])
    sparsities = sorted({row["sparsity"] for row in rows if row["sparsity"] is not None})
    lines = [[*key, *(f"{statistics.median(found[s]):.1f}x" for s in sparsities)] for key, found in times.items()]
    shapes = ", ".join(f"{a}x{b}" for a, b in sorted({(row["out_features"], row["in_features"]) for row in rows}))
    return (
        table(["engine", "tokens", *(f"{sparsity:.0%}" for sparsity in sparsities)], lines, text_columns=1)
        + f"\n\nTimes faster than the engine, one thread, median over {shapes}. Stored in "
        "`results/layers-sparse-engines.json`."
    )


def peak_block(result: str) -> str:
    """Part of the multiply-add units' peak that is spent on nonzeros, 768-wide layers, many tokens."""
    stored = load(result)
    peak = {one["threads"]: one["fma_gflops"] for one in stored["ceilings"]}
    found: dict[tuple[int, int, int], dict[float, float]] = defaultdict(dict)
    for row in stored["rows"]:
        wide = 768 in (row["out_features"], row["in_features"])
        if row["engine"] == "sparsekit" and row["threads"] == 1 and wide and row["batch"] >= 128:
            gflops = 2e-3 * row["nnz"] * row["batch"] / row["us"]
            found[row["out_features"], row["in_features"], row["batch"]][row["sparsity"]] = gflops / peak[1]
    sparsities = sorted({row["sparsity"] for row in stored["rows"] if row["sparsity"] is not None})
    lines = [
        [f"{o}x{i}", batch, *(f"{shares[sparsity]:.0%}" for sparsity in sparsities)]
        for (o, i, batch), shares in sorted(found.items())
    ]
    heading = ["layer", "tokens", *(f"{sparsity:.0%}" for sparsity in sparsities)]
    return (
        table(heading, lines, text_columns=1)
        + f"\n\nOf {peak[1]:.0f} GFLOP/s, which {stored['environment']['isa']} multiply-adds from registers reach on "
        "one core, measured in the same run."
    )


def cores_block(result: str) -> str:
    """What two threads gain over one, where the fastest dense engine gains at least 1.8."""
    rows = load(result)["rows"]
    us = {(*(row[name] for name in Group._fields), row["engine"], row["sparsity"]): row["us"] for row in rows}
    engines = {row["engine"] for row in rows if row["sparsity"] is None}
    gains: dict[int, list[float]] = defaultdict(list)
    for (*shape, batch, threads, engine, sparsity), two in us.items():
        if engine == "sparsekit" and threads == 2:
            dense = [min(us[(*shape, batch, count, name, None)] for name in engines) for count in (1, 2)]
            if dense[0] >= 1.8 * dense[1]:
                gains[batch].append(us[(*shape, batch, 1, engine, sparsity)] / two)
    lines = [
        [batch, len(found), _cell(found), sum(gain >= 1.8 for gain in found)] for batch, found in sorted(gains.items())
    ]
    heading = ["tokens", "cells where dense gains 1.8", "sparsekit, median and range", "of these 1.8 and more"]
    return table(heading, lines)


def _input(row: dict[str, Any]) -> str:
    return f"{row['batch']} x {row['tokens']} tokens"


def _model_table(stored: dict[str, Any]) -> str:
    """The fastest dense engine and ours on each input, milliseconds of the lower and the higher sparsity."""
    rows = stored["rows"]
    sparsities = sorted({row["sparsity"] for row in rows if row["sparsity"] is not None})
    ours = list(dict.fromkeys(row["engine"] for row in rows if row["sparsity"] is not None))
    inputs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        inputs[_input(row), row["threads"]].append(row)
    lines = []
    for (text, threads), members in sorted(inputs.items(), key=lambda item: (item[0][1], item[0][0])):
        dense = sorted(
            (row["ms"], row["engine"]) for row in members if row["sparsity"] is None and not row.get("wrong")
        )
        best = [next(one for one in dense if in_int8(one[1]) == int8) for int8 in (False, True)]
        sparse = {(row["engine"], row["sparsity"]): row for row in members if row["sparsity"] is not None}
        cells = [
            " / ".join(f"{sparse[name, s]['ms']:.1f} ({speedup(sparse[name, s], rows):.2f}x)" for s in sparsities)
            for name in ours
        ]
        lines.append([text, threads, *(f"{ms:.1f} {engine}" for ms, engine in best), *cells])
    heading = ["input", "threads", "best dense", "best dense int8", *ours]
    parts = " / ".join(f"{sparsity:.0%}" for sparsity in sparsities)
    return (
        table(heading, lines, text_columns=1)
        + f"\n\nMilliseconds of {stored['model']}, every linear layer of the encoder pruned by magnitude to {parts}, "
        "medians, interleaved, and times faster than the best dense engine in float32. "
        f"{machine(stored['environment'])}"
    )


def model_block() -> str:
    """MiniLM whole."""
    return f"{_model_table(load('model.json'))} Stored in `benchmarks/results/model.json`."


def other_model_block(result: str) -> str:
    """The same on another processor."""
    return f"{_model_table(load(result))} Stored in `results/{result}`."


def operators_block() -> str:
    """Where the time of the converted MiniLM goes."""
    rows = [row for row in load("model.json")["rows"] if row["operators"]]
    lines = []
    for row in sorted(rows, key=lambda row: (row["threads"], row["batch"], row["sparsity"])):
        parts = ", ".join(f"{name.removeprefix('aten::')} {ms:.2f}" for name, ms in largest_operators(row).items())
        lines.append([_input(row), row["threads"], row["engine"], f"{row['sparsity']:.0%}", parts])
    return table(["input", "threads", "engine", "sparsity", "milliseconds in"], lines, text_columns=5)


def costs_block() -> str:
    """Packing, a call, neighbours, joining."""
    stored = load("costs.json")
    packing = table(
        ["layer", "sparsity", "MB of dense weight a second", "peak of memory above the dense weight", "packed"],
        [
            [
                "x".join(map(str, row["shape"])),
                f"{row['sparsity']:.0%}",
                f"{row['mb_per_second']:.0f}",
                f"{row['peak_bytes_per_dense_byte']:.2f} of it",
                f"{row['packed_bytes_per_dense_byte']:.2f} of it",
            ]
            for row in stored["packing"]
        ],
        text_columns=1,
    )
    call = stored["call_us"]
    turns = table(
        ["tokens", "threads", "alone", "in turn", "dense alone", "dense in turn"],
        [
            [
                row["tokens"],
                row["threads"],
                *(
                    f"{1e6 * value:.0f}"
                    for kind in ("sparse", "dense")
                    for value in (row[kind], row[f"{kind}_and_others"] - row["others"])
                ),
            ]
            for row in stored["alternation"]
        ],
    )
    joins = table(
        ["width", "tokens", "threads", "apart", "joined", "times faster"],
        [
            [
                *(row[name] for name in ("width", "tokens", "threads")),
                *(f"{1e6 * row[name]:.0f}" for name in ("apart", "joined")),
                f"{row['apart'] / row['joined']:.2f}x",
            ]
            for row in stored["joining"]
        ],
    )
    return (
        f"From `nn.Linear` to a packed layer, one thread:\n\n{packing}\n\nA call of 16x16 with one token takes "
        f"{call['sparse']:.1f} microseconds, `nn.Linear` {call['dense']:.1f}.\n\nMicroseconds of a 768x768 layer at "
        "80%, alone and in turn with LayerNorm, attention and softmax of torch (time of both less the others'):\n\n"
        f"{turns}\n\nMicroseconds of three layers of one input at 90%, apart and as a `JoinedLinear`:\n\n{joins}\n\n"
        "Stored in `results/costs.json`."
    )


def slow_block() -> str:
    """Every cell in which sparse was slower than 0.95 of the best dense engine."""
    found = speedups(load("layers.json")["rows"])
    slow: dict[tuple[int, int, float], list[str]] = {}
    for cell, times in sorted(found.items()):
        if times < 0.95:
            text = f"{cell.out_features}x{cell.in_features} {times:.2f}x"
            slow.setdefault((cell.threads, cell.batch, cell.sparsity), []).append(text)
    lines = ["| threads | tokens | sparsity | shapes |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {t} | {b} | {s:.0%} | {', '.join(texts)} |" for (t, b, s), texts in sorted(slow.items())]
    count = sum(map(len, slow.values()))
    return "\n".join(lines) + f"\n\n{count} of {len(found)} cells are slower than 0.95 of the best dense engine."
