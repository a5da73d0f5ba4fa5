"""Section on speed: a chart and a table of all engines for each input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sparsekit.report.facts import EngineTime
from sparsekit.report.page import Picture, Section, Table
from sparsekit.report.pictures import KIND_COLORS, label, picture
from sparsekit.wording import counted, figure_text

#: Texts, tokens per text, threads: one interleaved measurement.
Input: TypeAlias = tuple[int, int, int]

#: Height of a chart in pixels: around the bars, and for each bar.
_AROUND, _BAR = 52, 22
_COLUMNS = ("engine", "computes", "ms", "quartiles", "texts/s", "our speed-up", "difference", "")
_WORDS = (0, 1, 7)
_COMPUTES = {"ours": "this model", "float32": "dense, float32", "int8": "dense, int8"}
_METHOD = (
    "Median time per call, all engines interleaved in one process on the same threads. “Our speed-up” is that of the "
    "first row over an engine; below 1, that engine is faster. Charts: this model in green, dense float32 engines in "
    "gray, dense int8 engines in orange."
)


def by_input(times: Iterable[EngineTime]) -> dict[Input, list[EngineTime]]:
    """Group times by input, in order."""
    found: dict[Input, list[EngineTime]] = {}
    for time in times:
        found.setdefault((time.texts, time.tokens, time.threads), []).append(time)
    return found


def input_text(given: Input) -> str:
    """Describe an input.

    >>> input_text((16, 128, 1))
    '16 texts of 128 tokens, 1 thread'
    """
    texts, tokens, threads = given
    return f"{counted(texts, 'text')} of {counted(tokens, 'token')}, {counted(threads, 'thread')}"


def ours_of(group: Iterable[EngineTime]) -> EngineTime | None:
    """First time of the model itself, the reference for speed-ups; None if there is none."""
    return next((time for time in group if time.kind == "ours"), None)


def best_of(group: Iterable[EngineTime], kind: str) -> EngineTime | None:
    """Fastest engine of a kind with right outputs; None if there is none."""
    return min((time for time in group if time.kind == kind and not time.wrong), key=lambda one: one.ms, default=None)


def _remarks(time: EngineTime, ours: EngineTime | None) -> str:
    faster = ours is not None and time.kind != "ours" and time.ms < ours.ms and not time.wrong
    told = {"faster than ours": faster, "noisy": time.noisy, "wrong answers here": time.wrong}
    return ", ".join(words for words, holds in told.items() if holds)


def _ms(value: float) -> str:
    """Format milliseconds with three digits at least."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _row(time: EngineTime, ours: EngineTime | None) -> list[str]:
    return [
        time.engine,
        _COMPUTES[time.kind],
        _ms(time.ms),
        "" if time.quartiles is None else " to ".join(map(_ms, time.quartiles)),
        figure_text(1e3 * time.texts / time.ms),
        "" if ours is None or time is ours else f"{time.ms / ours.ms:.2f}x",
        "" if time.difference is None else f"{time.difference:.0e}",
        _remarks(time, ours),
    ]


def _without_empty(table: Table, kept: int = 3) -> Table:
    """Drop empty columns, except the first `kept`."""
    shown = [i for i in range(len(table.columns)) if i < kept or any(row[i] for row in table.rows)]
    rows = [[row[i] for i in shown] for row in table.rows]
    words = [shown.index(i) for i in table.words if i in shown]
    return Table([table.columns[i] for i in shown], rows, table.title, words, table.marked)


def _table(given: Input, group: Sequence[EngineTime]) -> Table:
    ours = ours_of(group)
    rest = sorted((time for time in group if time is not ours), key=lambda one: one.ms)
    shown = [*([] if ours is None else [ours]), *rest]
    marked = [number for number, time in enumerate(shown) if time.kind == "ours"]
    return _without_empty(Table(_COLUMNS, [_row(time, ours) for time in shown], input_text(given), _WORDS, marked))


def _bars(given: Input, group: Sequence[EngineTime]) -> Picture:
    shown = sorted(group, key=lambda time: time.ms)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        colors = [KIND_COLORS[time.kind] for time in shown]
        bars = axes.barh(range(len(shown)), [time.ms for time in shown], color=colors, height=0.7)
        axes.bar_label(bars, [_ms(time.ms) for time in shown], padding=3)
        axes.set_yticks(range(len(shown)), [label(time.engine) for time in shown])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("ms, less is better")
        axes.spines.left.set_visible(False)
        axes.tick_params(axis="y", length=0)

    told = ", ".join(f"{time.engine} {_ms(time.ms)} ms" for time in shown)
    return picture(draw, f"{input_text(given)}: {told}", height=_AROUND + _BAR * len(shown), title=input_text(given))


def times_section(times: Sequence[EngineTime], remarks: Sequence[str]) -> Section:
    """Chart and table for each input."""
    groups = by_input(times)
    return Section(
        "Speed",
        [_METHOD, *remarks] if times else remarks,
        [_bars(given, group) for given, group in groups.items() if len(group) > 1],
        [_table(given, group) for given, group in groups.items()],
    )
