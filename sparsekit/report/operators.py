"""Section on the breakdown of a call's time by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsekit.report.facts import EngineTime
from sparsekit.report.page import Section, Table
from sparsekit.report.times import input_text
from sparsekit.wording import figure_text

#: Number of operators to show by name; the rest is summed.
_SHOWN = 8


def _rows(operators: Mapping[str, float]) -> list[list[str]]:
    items = list(operators.items())
    whole = sum(operators.values())
    rest = sum(ms for _, ms in items[_SHOWN:])
    shown = items[:_SHOWN] + ([("other", rest)] if items[_SHOWN:] else [])
    return [[name.removeprefix("aten::"), f"{ms:.3g}", f"{ms / whole:.0%}"] for name, ms in shown]


def operators_section(times: Sequence[EngineTime]) -> Section | None:
    """Table for each input with times by operator; None if there are none."""
    tables = [
        Table(
            ("operator", "ms", "share"),
            _rows(time.operators),
            f"{time.engine}, {input_text((time.texts, time.tokens, time.threads))}: {figure_text(time.ms)} ms",
        )
        for time in times
        if time.operators
    ]
    method = (
        "Fastest of ten calls in PyTorch: our operators timed around their calls, torch's by its profiler; “python” is "
        "the rest of the call. sparsekit.engine has no such breakdown: a call runs in the core as a whole."
    )
    return Section("Time by operator", [method], tables=tables) if tables else None
