"""What was measured of models and engines: which nothing beats in both quality and speed, and which one to take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparsekit.choose.targets import Targets


@dataclass(frozen=True)
class Score:
    """A score on texts that the search did not see.

    Attributes:
        value: the score.
        interval: lower and upper bound, at 95%; None if unknown.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Point:
    """A model in an engine, measured whole.

    Attributes:
        name: what tables call it.
        engine: what runs it, by its name in the benchmarks.
        quality: its main score on the texts that candidates are selected by, higher is better; None without one.
        unseen: its score on test data, if there are any.
        one_text_ms: median milliseconds of one text.
        texts_per_second: in batches.
        noisy: whether other programs disturbed a measurement.
        disk_bytes: of its weights; None where an engine does not tell.
        memory_bytes: of its weights once loaded; None where an engine does not tell.
        recipe: name of the file of the recipe that makes it; None for an engine with the dense weights.
    """

    name: str
    engine: str
    quality: float | None
    unseen: Score | None
    one_text_ms: float
    texts_per_second: float
    noisy: bool
    disk_bytes: int | None
    memory_bytes: int | None
    recipe: str | None = None


def speedup(point: Point, dense: Point) -> float:
    """How many times faster than another point: geometric mean of one text and of batches."""
    return math.sqrt(dense.one_text_ms / point.one_text_ms * point.texts_per_second / dense.texts_per_second)


def loss(point: Point, dense: Point) -> float | None:
    """The part of another point's score that this one lost, below 0 if it is better; None without scores."""
    if point.quality is None or not dense.quality:
        return None
    return 1.0 - point.quality / dense.quality


def frontier(points: Iterable[Point], dense: Point) -> list[Point]:
    """The points with a score that no other beats in both score and speed-up, fastest last."""
    found: list[Point] = []
    scored = [point for point in points if point.quality is not None]
    for point in sorted(scored, key=lambda one: (-speedup(one, dense), -(one.quality or 0.0))):
        if not found or (point.quality or 0.0) > (found[-1].quality or 0.0):
            found.append(point)
    return found[::-1]


def meets(point: Point, dense: Point, targets: Targets) -> bool:
    """Whether a point keeps to all targets."""
    lost = loss(point, dense)
    return (
        (targets.speedup is None or speedup(point, dense) >= targets.speedup)
        and (targets.latency_ms is None or point.one_text_ms <= targets.latency_ms)
        and (targets.bytes is None or (point.disk_bytes is not None and point.disk_bytes <= targets.bytes))
        and (lost is not None and lost <= targets.loss)
    )


def _shortfall(point: Point, dense: Point, targets: Targets) -> float:
    """How far a point is from the targets: the sum of the parts by which it misses each."""
    lost = loss(point, dense)
    missed = [0.0 if lost is None else max(0.0, lost - targets.loss)]
    if targets.speedup is not None:
        missed.append(max(0.0, 1.0 - speedup(point, dense) / targets.speedup))
    if targets.latency_ms is not None:
        missed.append(max(0.0, point.one_text_ms / targets.latency_ms - 1.0))
    if targets.bytes is not None:
        missed.append(1.0 if point.disk_bytes is None else max(0.0, point.disk_bytes / targets.bytes - 1.0))
    return math.fsum(missed)


def recommended(points: Sequence[Point], dense: Point, targets: Targets) -> tuple[Point, bool]:
    """The point to take: of those that meet all targets the fastest, else the nearest to them.

    Args:
        points: what was measured, at least one with a score.
        dense: what speed-up and loss are relative to.
        targets: what is asked for.

    Returns:
        The point, and whether it meets the targets.

    Raises:
        ValueError: no point has a score.
    """
    scored = [point for point in points if point.quality is not None]
    if not scored:
        raise ValueError("no point has a score; give test data with labels, pairs or texts")
    meeting = [point for point in scored if meets(point, dense, targets)]
    if meeting:
        return max(meeting, key=lambda point: speedup(point, dense)), True
    return min(scored, key=lambda point: (_shortfall(point, dense, targets), -speedup(point, dense))), False
