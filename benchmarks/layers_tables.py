"""Tables of linear layers, made from the JSON files that `sparsekit bench layers` wrote."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from results_tables import load, machine, percent, source, spread, table

from sparsekit.bench.summary import break_even, by_sparsity, groups, medians, speedups
from sparsekit.wording import counted

#: Numbers of tokens in short tables.
FEW = (1, 16, 128, 512, 2048)


def _packed_sizes(rows: list[dict[str, Any]]) -> str:
    """Bytes of packed weights as a fraction of the dense ones, median over the shapes."""
    ratios: dict[float, list[float]] = {}
    for row in rows:
        if row["engine"] == "sparsekit":
            dense = 4 * row["out_features"] * row["in_features"]
            ratios.setdefault(row["sparsity"], []).append(row["weight_bytes"] / dense)
    return ", ".join(f"{statistics.median(ratios[key]):.2f} at {key:.0%}" for key in sorted(ratios))


def _break_even(values: dict[float, list[float]]) -> str:
    """Break-even sparsity; the lowest measured one if sparse is always faster."""
    even = break_even(medians(values))
    if even is None:
        return "-"
    return f"{even:.0%}" if even > min(values) else f"≤ {even:.0%}"


def median_table(found: dict[Any, float]) -> str:
    """Speed-ups by threads, tokens and sparsity: median over the shapes, and the range."""
    sparsities = sorted({cell.sparsity for cell in found})
    lines = [
        [threads, batch, *map(spread, values.values()), _break_even(values)]
        for (threads, batch), values in by_sparsity(found).items()
    ]
    return table(["threads", "tokens", *percent(sparsities), "break-even"], lines)


def short_table(found: dict[Any, float], batches: Sequence[int]) -> str:
    """Medians over the shapes, one thread."""
    sparsities = sorted({cell.sparsity for cell in found})
    lines = [
        [batch, *(f"{median:.2f}x" for median in medians(values).values()), _break_even(values)]
        for (threads, batch), values in by_sparsity(found).items()
        if threads == 1 and batch in batches
    ]
    return table(["tokens", *percent(sparsities), "break-even"], lines)


def _shapes(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{a}x{b}" for a, b in sorted({(row["out_features"], row["in_features"]) for row in rows}))


def noise(rows: list[dict[str, Any]]) -> str:
    return f"{sum(row['noisy'] for row in rows)} of {len(rows)} timings were noisy."


def _slow_cells(found: dict[Any, float]) -> str:
    """How many cells are slower than dense, by sparsity."""
    slow = defaultdict(list)
    for cell, times in sorted(found.items()):
        if times < 0.95:
            slow[cell.sparsity].append(cell.batch)
    counts = "; ".join(
        f"{len(batches)} at {sparsity:.0%} ({', '.join(map(str, sorted(set(batches))))} tokens)"
        for sparsity, batches in sorted(slow.items())
    )
    return f"Of {len(found)} cells, these are below 0.95x of the best dense engine: {counts}."


def layers_block(name: str) -> str:
    """Speed-up over the best dense engine on one processor, every number of tokens."""
    stored = load(name)
    rows, packages = stored["rows"], stored["environment"]["packages"]
    return (
        f"{median_table(speedups(rows))}\n\n"
        f"Speed-up over the fastest of torch, ONNX Runtime {packages['onnxruntime']} and OpenVINO "
        f"{packages['openvino']} in each cell: median over {_shapes(rows)}, and the range. Random masks, float32. "
        f"{_slow_cells(speedups(rows))} {noise(rows)} Packed weights take this part of the dense bytes: "
        f"{_packed_sizes(rows)}. {machine(stored['environment'])} {source(name)}"
    )


def headline_block(name: str) -> str:
    """The same in short: medians, one thread, a few numbers of tokens."""
    stored = load(name)
    return f"{short_table(speedups(stored['rows']), FEW)}\n\n{machine(stored['environment'])} {source(name)}"


def masks_block() -> str:
    """The same for the layers of MiniLM, pruned by magnitude."""
    stored = load("layers-minilm.json")
    return (
        f"{median_table(speedups(stored['rows']))}\n\nThe layers of MiniLM, pruned by magnitude: bytes of the dense "
        f"weight {_packed_sizes(stored['rows'])}. {machine(stored['environment'])} {source('layers-minilm.json')}"
    )


def engines_block() -> str:
    """How many times faster sparsekit is than other sparse engines: median over shapes."""
    stored = load("layers-sparse-engines.json")
    rows = stored["rows"]
    times: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, members in groups(rows).items():
        mine = {row["sparsity"]: row["us"] for row in members if row["engine"] == "sparsekit"}
        for row in members:
            if row["engine"] != "sparsekit" and row["sparsity"] is not None:
                times[row["engine"], group.batch][row["sparsity"]].append(row["us"] / mine[row["sparsity"]])
    sparsities = sorted({row["sparsity"] for row in rows if row["sparsity"] is not None})
    lines = [[*key, *(f"{statistics.median(found[s]):.1f}x" for s in sparsities)] for key, found in times.items()]
    return (
        table(["engine", "tokens", *percent(sparsities)], lines, text_columns=1)
        + f"\n\nHow many times faster sparsekit is, one thread, median over {_shapes(rows)}. "
        f"{machine(stored['environment'])} {source('layers-sparse-engines.json')}"
    )


def slow_block() -> str:
    """Every cell in which sparse was slower than 0.95 of the best dense engine."""
    found = speedups(load("layers.json")["rows"])
    slow: dict[tuple[int, int, float], list[str]] = {}
    for cell, times in sorted(found.items()):
        if times < 0.95:
            text = f"{cell.out_features}x{cell.in_features} {times:.2f}x"
            slow.setdefault((cell.threads, cell.batch, cell.sparsity), []).append(text)
    lines = [[t, b, f"{s:.0%}", ", ".join(texts)] for (t, b, s), texts in sorted(slow.items())]
    count = sum(map(len, slow.values()))
    return (
        table(["threads", "tokens", "sparsity", "shapes"], lines, text_columns=4)
        + f"\n\n{count} of {len(found)} cells are below 0.95x of the best dense engine. {source('layers.json')}"
    )


def _above_lowest(rows: list[dict[str, Any]]) -> dict[int, float]:
    """Tokens -> break-even sparsity, the worst over threads, where it is above the lowest that was measured."""
    found: dict[int, float] = {}
    for (_, batch), values in by_sparsity(speedups(rows)).items():
        even = break_even(medians(values))
        if even is not None and even > min(values):
            found[batch] = max(even, found.get(batch, 0.0))
    return found


def _from(above: Mapping[int, float]) -> str:
    """Break-even sparsity in words; `above`: tokens for which it is above the lowest measured sparsity."""
    if not above:
        return "from 50% sparsity"
    tokens = f"{min(above)} to {max(above)} tokens" if len(above) > 1 else counted(min(above), "token")
    return f"from 50% sparsity; with {tokens} a call they need up to {max(above.values()):.0%}"


def pays_block() -> str:
    """Break-even sparsity of float32 layers, with AVX-512 and with AVX2 only."""
    wide: dict[int, float] = {}
    for name in ("layers.json", "layers-zen4.json", "layers-xeon.json"):
        for batch, even in _above_lowest(load(name)["rows"]).items():
            wide[batch] = max(even, wide.get(batch, 0.0))
    narrow = _above_lowest(load("layers-avx2.json")["rows"])
    return (
        f"- **AVX-512** (servers since 2017, AMD since Zen 4): float32 layers beat the best dense engine "
        f"{_from(wide)}. int8 is faster still.\n- **AVX2 only**: float32 layers beat it {_from(narrow)}."
    )
