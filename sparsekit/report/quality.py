"""Section on quality: scores with intervals, dense and compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsekit.report.facts import OURS, Ends, Quality, Score
from sparsekit.report.page import Picture, Section, Table
from sparsekit.report.pictures import KIND_COLORS, LINE, label, picture

_AROUND, _ROW = 56, 26


def with_ends(value: float, ends: Ends | None, sign: str = "") -> str:
    """Format a score and its interval.

    >>> with_ends(0.9021, (0.8853, 0.9172)), with_ends(-0.01, (-0.019, 0.002), "+")
    ('0.902 (0.885 to 0.917)', '-0.010 (-0.019 to +0.002)')
    """
    form = f"{sign},.{3 if abs(value) < 10 else 2}f"
    return f"{value:{form}}" + ("" if ends is None else f" ({ends[0]:{form}} to {ends[1]:{form}})")


def _table(quality: Quality) -> Table:
    metrics = list(dict.fromkeys(score.metric for score in quality.scores))
    models = list(dict.fromkeys(score.model for score in quality.scores))
    found = {(score.model, score.metric): with_ends(score.value, score.interval) for score in quality.scores}
    rows = [[model, *(found.get((model, metric), "") for metric in metrics)] for model in models]
    marked = [models.index(OURS)] if OURS in models else []
    changes = {metric: with_ends(*change, sign="+") for metric, change in quality.differences.items()}
    if changes:
        rows.append(["difference, paired", *(changes.get(metric, "") for metric in metrics)])
    return Table(["", *metrics], rows, marked=marked)


def _points(metric: str, scores: Sequence[Score]) -> Picture:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, score in enumerate(scores):
            low, high = score.interval or (score.value, score.value)
            color = KIND_COLORS["ours" if score.model == OURS else "float32"]
            axes.plot([low, high], [place, place], color=color, linewidth=3, alpha=0.55, solid_capstyle="round")
            axes.plot([score.value], [place], color=color, marker="o", markersize=7)
        axes.set_yticks(range(len(scores)), [label(score.model) for score in scores])
        axes.invert_yaxis()
        axes.margins(y=0.4)
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.spines.left.set_visible(False)
        axes.tick_params(axis="y", length=0)

    told = ", ".join(f"{score.model} {with_ends(score.value, score.interval)}" for score in scores)
    return picture(draw, f"{metric}: {told}", height=_AROUND + _ROW * len(scores), title=metric)


def quality_section(quality: Quality) -> Section:
    """Chart for each metric, and a table of all."""
    metrics = dict.fromkeys(score.metric for score in quality.scores)
    pictures = [_points(metric, [one for one in quality.scores if one.metric == metric]) for metric in metrics]
    method = f"Intervals: {quality.method}."
    if quality.differences:
        method += " Paired differences compare both models on the same bootstrap samples."
    return Section("Quality", [*quality.remarks, method], pictures, [_table(quality)])
