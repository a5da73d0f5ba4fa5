"""The page of a search: the frontier as a plot and a table, what to take, and how sparse its layers are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsekit.bench.peer import is_ours
from sparsekit.bench.summary import in_int8
from sparsekit.choose.fidelity import FIDELITY
from sparsekit.choose.points import Point, frontier, speedup
from sparsekit.choose.request import Request
from sparsekit.choose.telling import columns, point_rows
from sparsekit.recipes.yaml_file import read_recipe
from sparsekit.report.environment import commands_section, environment_section
from sparsekit.report.page import Page, Picture, Section, Table, write_page
from sparsekit.report.pictures import KIND_COLORS, LINE, label, picture, write_png
from sparsekit.runtime.environment import environment

_WIDTH, _HEIGHT = 640, 360
#: What is said of a score that no labels or pairs are behind.
_FIDELITY = "Fidelity: mean cosine between the vectors of a model and of the dense one, of texts kept to select by."


def _kind(point: Point) -> str:
    if is_ours(point.engine):
        return "ours"
    return "int8" if in_int8(point.engine) else "float32"


class _Frontier:
    """Score against speed-up of every point with a score, the frontier as a line.

    Args:
        points: what was measured.
        dense: what speed-ups are relative to.
        score: its name.
    """

    def __init__(self, points: Sequence[Point], dense: Point, score: str) -> None:
        self._scored = [(point, speedup(point, dense), point.quality) for point in points if point.quality is not None]
        self._best = frontier(points, dense)
        self._dense, self._score = dense, score

    def picture(self) -> Picture:
        """For the page; every point tells its name, speed-up and score to a pointer that is on it."""
        told = [f"{point.name}: {faster:.2f}x, {quality:.3f}" for point, faster, quality in self._scored]
        hover = {f"point-{number}": f"{text} {self._score}" for number, text in enumerate(told)}
        description = f"{self._score} against speed-up. {', '.join(told)}"
        return picture(self._draw, description, width=_WIDTH, height=_HEIGHT, hover=hover)

    def write(self, path: Path) -> None:
        """As PNG."""
        write_png(self._draw, path, width=_WIDTH, height=_HEIGHT)

    def _draw(self, figure: Any) -> None:
        axes = figure.subplots()
        line = sorted((faster, quality) for point, faster, quality in self._scored if point in self._best)
        axes.plot(*zip(*line, strict=True), "-", color=LINE, zorder=1)
        for number, (point, faster, quality) in enumerate(self._scored):
            axes.plot(faster, quality, "o", color=KIND_COLORS[_kind(point)], zorder=2, gid=f"point-{number}")
            axes.annotate(label(point.name), (faster, quality), xytext=(5, 5), textcoords="offset points", fontsize=9)
        axes.set(xlabel=f"times as fast as {self._dense.name}", ylabel=self._score)
        axes.margins(x=0.15, y=0.15)
        axes.grid()


def _layers(point: Point, out: Path) -> Section | None:
    """The sparsities in a point's recipe."""
    if point.recipe is None:
        return None
    stages = [stage.settings for stage in read_recipe(out / point.recipe).stages if stage.name == "prune"]
    sparsities: Mapping[str, float] = stages[0].sparsities or {} if stages else {}  # type: ignore[attr-defined]
    if not sparsities:
        return None
    rows = [[name, f"{sparsity:.0%}"] for name, sparsity in sparsities.items()]
    return Section("Layers", [f"Sparsity of each layer in {point.name}."], tables=[Table(("layer", "zeros"), rows)])


def _command(request: Request) -> str:
    options: list[tuple[str, Any]] = [
        ("--data", request.data),
        ("--test", request.test),
        ("--out", request.out),
        ("--task", request.task),
        ("--minutes", f"{request.minutes:g}"),
        ("--threads", request.threads),
        ("--max-loss", f"{request.targets.loss:g}"),
        ("--target-speedup", request.targets.speedup),
        ("--max-latency-ms", request.targets.latency_ms),
        ("--max-mb", None if request.targets.bytes is None else request.targets.bytes / 1e6),
        *((f"--{name.replace('_', '-')}", value) for name, value in request.settings.items()),
        ("--seed", request.seed),
    ]
    given = [str(text) for option in options if option[1] is not None for text in option]
    return shlex.join(["sparsekit", "choose", str(request.model), *given])


def write_search_page(
    request: Request, points: Sequence[Point], dense: Point, chosen: Point, score: str, headline: Sequence[str]
) -> None:
    """Write `report.html` to the folder of the search, and its plot to `frontier.png`.

    Args:
        request: what the search was asked for.
        points: what was measured.
        dense: what speed-ups are relative to.
        chosen: the point to take.
        score: name of the score.
        headline: what to take, in sentences.

    Raises:
        ModuleNotFoundError: jinja2 or matplotlib is not installed.
        OSError: a file cannot be written.
    """
    plot = _Frontier(points, dense, score)
    plot.write(request.out / "frontier.png")
    rows = point_rows(points, dense)
    marked = [number for number, row in enumerate(rows) if row[0].removesuffix(" *") == chosen.name]
    explained = ["A star marks points that nothing beats in both score and speed, a tilde times that others disturbed."]
    explained += [_FIDELITY] if score == FIDELITY else []
    sections = [
        Section("Points", explained, [plot.picture()], [Table(columns(score), rows, marked=marked)]),
        _layers(chosen, request.out),
        environment_section(environment()),
        commands_section([_command(request)]),
    ]
    page = Page(f"Compressing {request.model.name}", headline, [one for one in sections if one is not None])
    write_page(page, request.out / "report.html")
