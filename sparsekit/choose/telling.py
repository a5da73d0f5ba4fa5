"""Tell what a search found: a table of points, and what to take in two sentences."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from sparsekit.bench.summary import in_int8
from sparsekit.choose.fidelity import FIDELITY
from sparsekit.choose.points import Point, frontier, loss, speedup
from sparsekit.choose.targets import Targets

#: Marks of points in tables.
_FRONTIER, _NOISY = "*", "~"


def columns(score: str) -> tuple[str, ...]:
    """Columns of tables of points, with the name of their score; all but the first hold numbers."""
    return ("model or engine", score, "unseen (95%)", "ms/text", "texts/s", "speed-up", "MB")


def point_rows(points: Sequence[Point], dense: Point) -> list[list[str]]:
    """Cells of every point, slowest first; a star marks those that nothing beats, a tilde noisy times.

    Args:
        points: what was measured.
        dense: what speed-ups are relative to.
    """
    best = frontier(points, dense)
    return [
        [
            point.name + f" {_FRONTIER}" * (point in best),
            "" if point.quality is None else f"{point.quality:.3f}",
            _unseen(point),
            f"{point.one_text_ms:.2f}{_NOISY * point.noisy}",
            f"{point.texts_per_second:.0f}{_NOISY * point.noisy}",
            f"{speedup(point, dense):.2f}x",
            "" if point.disk_bytes is None else f"{point.disk_bytes / 1e6:.1f}",
        ]
        for point in sorted(points, key=lambda one: speedup(one, dense))
    ]


def points_table(points: Sequence[Point], dense: Point, score: str) -> Table:
    """`point_rows` for a terminal."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns(score)):
        table.add_column(name, justify="right" if number else "left")
    for row in point_rows(points, dense):
        table.add_row(*row)
    return table


def _unseen(point: Point) -> str:
    if point.unseen is None:
        return ""
    ends = point.unseen.interval
    return f"{point.unseen.value:.3f}" + (f" ({ends[0]:.3f}-{ends[1]:.3f})" if ends else "")


def advice(
    points: Sequence[Point],
    dense: Point,
    chosen: Point,
    meets_targets: bool,
    targets: Targets,
    score: str,
    *,
    nothing: str = "Nothing that was measured",
) -> str:
    """What to take, and why, in two sentences.

    Args:
        points: what was measured.
        dense: what speed-ups are relative to.
        chosen: as `recommended` gives it.
        meets_targets: likewise.
        targets: what was asked for.
        score: name of the score.
        nothing: what `chosen` is the best of, as the subject of a sentence that denies it.
    """
    lost = loss(chosen, dense) or 0.0
    kept = f"{_kept(lost, score)} and is {speedup(chosen, dense):.2f} times as fast as {dense.name}"
    first = f"Take {chosen.name}: it {kept}, {_over_int8(points, dense, chosen, score)}."
    if not meets_targets:
        return f"{nothing} meets the targets ({_words(targets)}). Nearest is {chosen.name}, which {kept}."
    how = f"{chosen.recipe} makes it" if chosen.recipe else "No compression beats it"
    return f"{first} {how}."


def _kept(lost: float, score: str) -> str:
    what = "fidelity to the dense model" if score == FIDELITY else f"of the dense {score}"
    return f"keeps {1 - lost:.1%} {what}"


def _over_int8(points: Sequence[Point], dense: Point, chosen: Point, score: str) -> str:
    engines = [point for point in points if point.recipe is None and in_int8(point.engine)]
    if not engines:
        return "no dense int8 engine being installed"
    best = max(engines, key=lambda point: speedup(point, dense))
    if best is chosen:
        return "the fastest dense int8 engine"
    lost = loss(best, dense)
    has = "whose score was not measured here" if lost is None else f"which {_kept(lost, score)}"
    faster = speedup(chosen, dense) / speedup(best, dense)
    return f"{faster:.2f} times as fast as the best dense int8 engine, {best.name}, {has}"


def _words(targets: Targets) -> str:
    words = [f"at most {targets.loss:.1%} of the score lost"]
    words += [f"{targets.speedup:g}x"] if targets.speedup is not None else []
    words += [f"{targets.latency_ms:g} ms a text"] if targets.latency_ms is not None else []
    words += [f"{targets.bytes / 1e6:g} MB"] if targets.bytes is not None else []
    return ", ".join(words)
