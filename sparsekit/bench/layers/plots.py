"""Plots of the layer benchmark: speed-up against sparsity, and a roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sparsekit.bench.processors import processor
from sparsekit.bench.summary import break_even, by_sparsity, medians, speedups
from sparsekit.wording import counted


def _speedup_axes(axes: Any, rows: list[dict[str, Any]], threads: int) -> None:
    for (count, batch), values in by_sparsity(speedups(rows)).items():
        if count != threads:
            continue
        percent, middle = [100 * sparsity for sparsity in values], medians(values)
        even = break_even(middle)
        label = counted(batch, "token") + (f", break-even {even:.0%}" if even is not None else "")
        (line,) = axes.plot(percent, list(middle.values()), marker="o", label=label)
        low, high = ([pick(group) for group in values.values()] for pick in (min, max))
        axes.fill_between(percent, low, high, color=line.get_color(), alpha=0.08)
    axes.axhline(1.0, color="black", linewidth=1, linestyle="--")
    axes.set(
        xlabel="sparsity (%)",
        ylabel="speed-up over the best dense engine",
        yscale="log",
        title=f"{threads} thread{'s' if threads > 1 else ''}, median over shapes and range",
    )
    axes.set_yticks([0.5, 1, 2, 4, 8, 16], labels=["0.5", "1", "2", "4", "8", "16"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def plot_speedup(stored: dict[str, Any], path: Path) -> None:
    """Speed-up over the best dense engine against sparsity, a line for each batch, with its break-even point."""
    rows = stored["rows"]
    threads = sorted({row["threads"] for row in rows})
    figure, axes = plt.subplots(1, len(threads), figsize=(7 * len(threads), 5), layout="constrained", squeeze=False)
    for one, count in zip(axes[0], threads, strict=True):
        _speedup_axes(one, rows, count)
    figure.suptitle(processor(stored["environment"]))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _color(sparsity: float) -> Any:
    return plt.get_cmap("viridis")((sparsity - 0.4) / 0.6)


def plot_roofline(stored: dict[str, Any], path: Path) -> None:
    """Roofline: GFLOP/s on nonzeros against arithmetic intensity, one thread, under the measured ceilings."""
    ceilings = min(stored["ceilings"], key=lambda one: one["threads"])
    threads = ceilings["threads"]
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    intensity = [2.0**i for i in range(-3, 11)]
    axes.axhline(ceilings["fma_gflops"], color="black", linewidth=1, linestyle="--")
    axes.annotate(f"multiply-adds {ceilings['fma_gflops']:.0f} GFLOP/s", (intensity[0], ceilings["fma_gflops"]))
    for name, bandwidth in (("256 MB", ceilings["memory_gbps"]), ("256 KB", ceilings["cache_gbps"])):
        roof = [min(ceilings["gflops"], x * bandwidth) for x in intensity]
        axes.plot(intensity, roof, color="black", linewidth=1, linestyle="-" if name == "256 MB" else ":")
        axes.annotate(f"torch reads {name} at {bandwidth:.0f} GB/s", (intensity[0], roof[0]), fontsize=8, va="bottom")
    axes.annotate(
        f"torch dense matmul {ceilings['gflops']:.0f} GFLOP/s",
        (intensity[-1], ceilings["gflops"]),
        ha="right",
        va="top",
    )
    for row in stored["rows"]:
        if row["engine"] == "sparsekit" and row["threads"] == threads:
            flop = 2.0 * row["nnz"] * row["batch"]
            moved = row["weight_bytes"] + 4.0 * row["batch"] * (row["in_features"] + row["out_features"])
            axes.scatter(flop / moved, flop / row["us"] / 1e3, s=14, color=_color(row["sparsity"]))
    for sparsity in sorted({row["sparsity"] for row in stored["rows"] if row["sparsity"] is not None}):
        axes.scatter([], [], color=_color(sparsity), label=f"{sparsity:.0%}")
    axes.set(xscale="log", yscale="log", xlabel="flop on nonzeros a byte", ylabel="GFLOP/s on nonzeros")
    axes.set_title(
        f"{processor(stored['environment'])}, {threads} thread{'s' if threads > 1 else ''}, every shape and batch"
    )
    axes.grid(alpha=0.3)
    axes.legend(title="sparsity", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
