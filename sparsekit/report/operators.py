"""The section on operators: where the time of a call goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsekit.report.facts import EngineTime
from sparsekit.report.page import Section, Table
from sparsekit.report.times import input_text
from sparsekit.wording import figure_text

#: Operators that are shown by name; the rest is summed.
_SHOWN = 8


def _rows(operators: Mapping[str, float]) -> list[list[str]]:
    items = list(operators.items())
    whole = sum(operators.values())
    rest = sum(ms for _, ms in items[_SHOWN:])
    shown = items[:_SHOWN] + ([("other", rest)] if items[_SHOWN:] else [])
    return [[name.removeprefix("aten::"), f"{ms:.3g}", f"{ms / whole:.0%}"] for name, ms in shown]


def operators_section(times: Sequence[EngineTime]) -> Section | None:
    """A table for each input on which operators were timed; None without any."""
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
        "Milliseconds of the fastest of ten calls in PyTorch, ours by a clock, the others by torch's profiler; "
        "“python” is what is left. sparsekit.engine has no operators to take apart: a call runs whole in the core."
    )
    return Section("Time by operator", [method], tables=tables) if tables else None
