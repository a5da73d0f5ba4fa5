"""Measure what was made, whole, and score it on texts that the search did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sparsekit.choose.engines import Race, installed_engines
from sparsekit.choose.finishing import Made
from sparsekit.choose.points import Point, Score
from sparsekit.choose.request import Request
from sparsekit.choose.subject import Subject
from sparsekit.engine import compile_model
from sparsekit.recipes.data.splits import Splits
from sparsekit.recipes.data.tables import read_rows
from sparsekit.recipes.preparation import prepare
from sparsekit.recipes.report.sizes import disk_bytes


def _unseen(request: Request, folder: Path) -> Score | None:
    if request.test is None:
        return None
    recipe = request.recipe(request.settings)
    columns = recipe.data
    label = columns.label or ("label" if request.task == "classification" else None)
    rows = read_rows(request.test, columns.text, columns.pair, label)
    scores = prepare(recipe, folder, Splits(None, None, rows), request.out / "work").scores()
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
    compiled = {one.candidate.name: compile_model(one.folder, measure=True) for one in made}
    speeds = race.run(compiled)
    dense = made[0]
    unseen = {one.candidate.name: _unseen(request, one.folder) for one in made}
    points = [
        Point(engine, engine, dense.quality if "int8" not in engine else None, None, **asdict(speeds[engine]),
              disk_bytes=disk_bytes(request.model), memory_bytes=None)
        for engine in race.engines
    ]  # fmt: skip
    for number, one in enumerate(made):
        name = one.candidate.name
        nbytes = compiled[name].nbytes
        recipe = f"recipes/{number}.yaml" if number else None
        points.append(Point(name, "sparsekit-engine", one.quality, unseen[name], **asdict(speeds[name]),
                            disk_bytes=nbytes, memory_bytes=nbytes, recipe=recipe))  # fmt: skip
    return points


def fastest_float32(points: Sequence[Point]) -> Point:
    """The dense engine in float32 that all are compared with: the one with the least time of one text and a batch."""
    dense = [point for point in points if point.recipe is None and "int8" not in point.engine]
    return min(dense, key=lambda point: point.one_text_ms / point.texts_per_second)
