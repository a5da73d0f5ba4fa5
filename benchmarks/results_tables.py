"""What all tables share: the stored results, the processor they were measured on, Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: Instruction sets with a byte permute of 128 bytes, by every name that stored results have for them.
_VBMI = {"avx512vbmi", "zen4", "icelake"}


def load(name: str) -> dict[str, Any]:
    """A committed result."""
    loaded: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return loaded


def _microarchitecture(environment: dict[str, Any]) -> str:
    """What lscpu's model hides on virtual machines, from the instruction sets that the run found.

    Of AMD's processors with AVX-512 those of family 25 have no AVX-VNNI, those of family 26 have; of Intel's with
    AVX-512 Sapphire Rapids is the first that has it.
    """
    found = set(environment["available_isas"])
    if not found & _VBMI:
        return ""
    if environment["cpu"].startswith("AMD"):
        return "Zen 5, family 26" if "avxvnni" in found else "Zen 4, family 25"
    return "Sapphire Rapids or later, family 6" if "avxvnni" in found else "family 6"


def processor(environment: dict[str, Any]) -> str:
    """The processor by lscpu's model name and family.

    >>> processor({"cpu": "AMD EPYC", "available_isas": ["avx2", "avxvnni", "avx512vbmi"]})
    'AMD EPYC (Zen 5, family 26)'
    >>> processor({"cpu": "AMD EPYC", "cpu_family": 25, "cpu_model": 17, "available_isas": ["avx2"]})
    'AMD EPYC (family 25, model 17)'
    """
    name = environment["cpu"].replace("(R)", "")
    if environment.get("cpu_family"):
        return f"{name} (family {environment['cpu_family']}, model {environment['cpu_model']})"
    core = _microarchitecture(environment)
    return f"{name} ({core})" if core else name


def machine(environment: dict[str, Any]) -> str:
    """Where something was measured."""
    return (
        f"{processor(environment)}, {environment['processors']} processors, "
        f"torch {environment['packages']['torch']}, Python {environment['python']}."
    )


def source(*names: str) -> str:
    """Where the numbers are stored."""
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
