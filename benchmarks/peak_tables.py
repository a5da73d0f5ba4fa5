"""Fraction of a core's peak that layers reach, and the gain of a second thread."""

from __future__ import annotations

from collections import defaultdict

from results_tables import load, machine, percent, source, spread, table

from sparsekit.bench.summary import Group


def peak_block(result: str) -> str:
    """Fraction of the fused multiply-add peak that nonzeros reach, 768-wide layers, many tokens."""
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
    return (
        table(["layer", "tokens", *percent(sparsities)], lines, text_columns=1)
        + f"\n\nOf {peak[1]:.0f} GFLOP/s, which fused multiply-adds from registers reach on one core, measured in the "
        f"same run. {machine(stored['environment'])} {source(result)}"
    )


def cores_block(result: str) -> str:
    """What two threads gain over one, where the fastest dense engine gains at least 1.8."""
    stored = load(result)
    rows = stored["rows"]
    us = {(*(row[name] for name in Group._fields), row["engine"], row["sparsity"]): row["us"] for row in rows}
    engines = {row["engine"] for row in rows if row["sparsity"] is None}
    gains: dict[int, list[float]] = defaultdict(list)
    for (*shape, batch, threads, engine, sparsity), two in us.items():
        if engine == "sparsekit" and threads == 2:
            dense = [min(us[(*shape, batch, count, name, None)] for name in engines) for count in (1, 2)]
            if dense[0] >= 1.8 * dense[1]:
                gains[batch].append(us[(*shape, batch, 1, engine, sparsity)] / two)
    lines = [
        [batch, len(found), spread(found), sum(gain >= 1.8 for gain in found)] for batch, found in sorted(gains.items())
    ]
    heading = ["tokens", "cells where dense gains 1.8x", "sparsekit, median and range", "of these 1.8x and more"]
    return f"{table(heading, lines)}\n\n{machine(stored['environment'])} {source(result)}"
