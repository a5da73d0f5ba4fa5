"""Shared by all tables: stored results, the processor they were measured on, Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparsekit.bench.processors import processor

RESULTS = Path(__file__).parent / "results"


def load(name: str) -> dict[str, Any]:
    """A committed result."""
    loaded: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return loaded


def machine(environment: dict[str, Any]) -> str:
    """Processor and versions of a measurement."""
    return (
        f"{processor(environment)}, {environment['processors']} processors, "
        f"torch {environment['packages']['torch']}, Python {environment['python']}."
    )


def source(*names: str) -> str:
    """Source files of the numbers."""
    return "Source: " + ", ".join(f"`benchmarks/results/{name}`" for name in names) + "."


def table(heading: Sequence[str], lines: Iterable[Sequence[Any]], text_columns: int = 0) -> str:
    """A Markdown table; the first `text_columns` columns are text, the others numbers."""
    rule = ["---" if i < text_columns else "---:" for i in range(len(heading))]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (heading, rule, *lines))


def spread(values: list[float]) -> str:
    """Median and range of speed-ups."""
    return f"{statistics.median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def percent(sparsities: Iterable[float]) -> list[str]:
    """Sparsities as a heading."""
    return [f"{sparsity:.0%}" for sparsity in sparsities]
