"""The frontier of SmolLM2: a table of the JSON file that `frontier.py` wrote, and a plot beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from results_tables import load, machine, source, table

from sparsekit.wording import size_text

_LLAMA_CPP = ("Q8_0", "Q4_0", "Q4_1")


def name_of(row: dict[str, Any]) -> str:
    """Type of the weights, and their zeros."""
    if row["weights"] in _LLAMA_CPP:
        return f"llama.cpp {row['weights']}"
    return row["weights"] + ("" if row["sparsity"] is None else f" {row['sparsity']:.0%}")


def _perplexities(row: dict[str, Any], text: str) -> str:
    """In one shot, and recovered."""
    found = (row[stage] for stage in ("one_shot", "recovered"))
    return " / ".join("-" if one is None else f"{one[text]:.1f}" for one in found)


def _speed(row: dict[str, Any], what: str) -> str:
    return " / ".join(f"{speed[what]['median']:.0f}" + "\\*" * speed["noisy"] for speed in row["speed"])


def frontier_block(result: str) -> str:
    """Quality, size and speed of every type and sparsity."""
    stored = load(result)
    rows = stored["rows"]
    lines = [
        [
            name_of(row),
            _perplexities(row, "reviews"),
            _perplexities(row, "definitions"),
            size_text(row["speed"][0]["file_bytes"]),
            size_text(row["speed"][0]["resident_bytes"]),
            _speed(row, "decode"),
            _speed(row, "prefill"),
        ]
        for row in rows
    ]
    threads = " / ".join(str(speed["threads"]) for speed in rows[0]["speed"])
    noisy = " \\*: noisy." if any(speed["noisy"] for row in rows for speed in row["speed"]) else ""
    head = ["weights", "reviews", "definitions", "on disk", "resident", "decode", f"prefill of {stored['prompt']}"]
    return (
        table(head, lines, text_columns=1)
        + "\n\nPerplexity of film reviews and of WordNet's definitions, not learned from, in windows of 256 tokens: "
        "in one shot / recovered, that is taught on other reviews by the dense model, 181 steps of 1,024 tokens; dense "
        "weights are taught the same way. That of llama.cpp's types is of their weights, computed in float32. Tokens a "
        f"second on {threads} thread{'' if threads == '1' else 's'}, medians of {stored['rounds']} interleaved rounds; "
        f"float32 is timed in torch. Q4_1 is the file that all others are made of.{noisy} "
        f"{machine(stored['environment'])} {source(result)}"
    )


def plot(stored: dict[str, Any], path: Path) -> None:
    """Perplexity of reviews against tokens a second and against bytes, hollow in one shot, filled recovered."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", sharey=True)
    groups = {"float32": "torch float32", "int8": "sparsekit int8", "int4": "sparsekit int4"}
    for row in stored["rows"]:
        group = groups.get(row["weights"], "llama.cpp")
        color = f"C{[*groups.values(), 'llama.cpp'].index(group)}"
        speed = row["speed"][0]
        for axes, x in zip(panels, (speed["decode"]["median"], speed["file_bytes"] / 1e6), strict=True):
            for stage, filled in (("one_shot", False), ("recovered", True)):
                if row[stage] is not None:
                    y = row[stage]["reviews"]
                    axes.plot(x, y, "o", color=color, fillstyle="full" if filled else "none")
                    axes.annotate(name_of(row), (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
    threads = stored["rows"][0]["speed"][0]["threads"]
    panels[0].set(xlabel=f"tokens a second, decoding, threads: {threads}", ylabel="perplexity of reviews", yscale="log")
    panels[1].set(xlabel="MB of weights")
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.suptitle("SmolLM2-135M: hollow in one shot (dense: as it is), filled recovered (dense: taught the same)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
