"""Section on memory and disk."""

from __future__ import annotations

from collections.abc import Sequence

from sparsekit.report.facts import OURS, ModelSize
from sparsekit.report.page import Section, Table
from sparsekit.wording import size_text


def _text(nbytes: int | None) -> str:
    return "" if nbytes is None else size_text(nbytes)


def sizes_section(sizes: Sequence[ModelSize], remarks: Sequence[str]) -> Section:
    """Table of models."""
    rows = [[size.model, _text(size.disk), _text(size.memory)] for size in sizes]
    marked = [number for number, size in enumerate(sizes) if size.model.startswith(OURS)]
    return Section("Memory and disk", remarks, tables=[Table(("", "disk", "memory"), rows, marked=marked)])
