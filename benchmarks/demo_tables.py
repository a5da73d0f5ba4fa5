"""Tables of the demo, made from the `result.json` that it wrote."""

from __future__ import annotations

from typing import Any

from results_tables import load, machine, source, table

#: Engine of the speed part -> heading.
_ENGINES = {"torch": "dense, torch", "sparsekit": "sparse, float32", "sparsekit-int8": "sparse, int8"}


def _speed_table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds of every input and engine, and the gain over torch."""
    lines = []
    for texts, tokens in dict.fromkeys((row["batch"], row["tokens"]) for row in rows):
        ms = {row["engine"]: row["ms"] for row in rows if (row["batch"], row["tokens"]) == (texts, tokens)}
        gains = [f"{ms[engine]:.1f} ({ms['torch'] / ms[engine]:.1f}x)" for engine in _ENGINES]
        lines.append([f"{texts} x {tokens} tokens", *gains])
    return table(["MiniLM, ms", *_ENGINES.values()], lines, text_columns=1)


def _accuracy_table(rows: list[dict[str, Any]]) -> str:
    """Accuracy, speed and size of every model that the recipe compared."""
    names = {"one_text_ms": "ms/text", "texts_per_second": "texts/s", "folder_mb": "MB disk", "memory_mb": "MB RAM"}
    lines = []
    for row in rows:
        low, high = row["interval"]
        score = f"{row['score']:.1%} ({low:.1%} to {high:.1%})"
        lines.append([row["name"], score, *(f"{row[name]:.1f}" if name in row else "" for name in names)])
    return table(["", "accuracy (95%)", *names.values()], lines, text_columns=1)


def demo_block() -> str:
    """What the demo measured: speed with zeros imposed, then accuracy by its recipe."""
    result = load("demo.json")
    compared = result["report"]["comparison"]
    noisy = any(row.get("noisy") for row in [*result["speed"], *compared["rows"]])
    seconds = result["seconds"]
    return (
        f"{_speed_table(result['speed'])}\n\n{_accuracy_table(compared['rows'])}\n\n"
        f"{result['train_sentences']:,} training sentences, {result['test_sentences']:,} test sentences, "
        f"{result['sparsity']:.0%} of the linear weights zero, {compared['threads']} threads, "
        f"{seconds['all']:.0f} seconds after the install, {seconds['speed']:.0f} of them for the speed part"
        f"{'; the machine was busy, times are noisy' * noisy}. {machine(result['environment'])} {source('demo.json')}"
    )
