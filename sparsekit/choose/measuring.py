"""Measure what was made, whole, and score it on texts that the search did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sparsekit import runtime
from sparsekit.bench.summary import in_int8
from sparsekit.choose.engines import Race, installed_engines
from sparsekit.choose.finishing import Made
from sparsekit.choose.int8_scores import int8_scores
from sparsekit.choose.points import Point, Score
from sparsekit.choose.subject import Subject
from sparsekit.engine import compile_model
from sparsekit.recipes.job import Job
from sparsekit.recipes.report.sizes import disk_bytes


def _unseen(job: Job | None, folder: Path) -> Score | None:
    if job is None:
        return None
    scores = job.scores_in(folder)
    name = next(iter(scores))
    interval = scores["intervals"].get(name)
    return Score(float(scores[name]), None if interval is None else (interval[0], interval[1]))


def points_of(subject: Subject, made: Sequence[Made]) -> list[Point]:
    """Measure everything whole, interleaved: the dense engines that are installed, and what was made, in ours.

    Args:
        subject: the model and its texts.
        made: the dense model first.
    """
    request = subject.request
    race = Race(subject.encoder(), subject.tokens, request.threads, subject.calibration(), installed_engines())
    with runtime.limited_threads(request.threads):  # the layouts that are fastest with them
        compiled = {str(number): compile_model(one.folder, measure=True) for number, one in enumerate(made)}
    speeds = race.run(compiled)
    dense, disk = made[0], disk_bytes(request.model)
    engines = [name for name in speeds if name not in compiled]
    scores = int8_scores(race, subject.job, engines)
    points = []
    for engine in engines:
        quality, nbytes = (scores.get(engine), None) if in_int8(engine) else (dense.quality, disk)
        points.append(
            Point(engine, engine, quality, None, **asdict(speeds[engine]), disk_bytes=nbytes, memory_bytes=None)
        )
    for number, one in enumerate(made):
        nbytes = compiled[str(number)].nbytes
        recipe = f"recipes/{number}.yaml" if number else None
        points.append(Point(one.candidate.name, "sparsekit-engine", one.quality, _unseen(subject.unseen, one.folder),
                            **asdict(speeds[str(number)]), disk_bytes=nbytes, memory_bytes=nbytes,
                            recipe=recipe))  # fmt: skip
    return points


def fastest_float32(points: Sequence[Point]) -> Point:
    """The dense engine in float32 that all are compared with: the one with the least time of one text and a batch."""
    dense = [point for point in points if point.recipe is None and not in_int8(point.engine)]
    return min(dense, key=lambda point: point.one_text_ms / point.texts_per_second)
