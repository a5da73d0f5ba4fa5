"""The verb that searches for the compression to take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsekit.cli.option_groups import grouped
from sparsekit.cli.options import Data, Model, console, need, need_training, print_text
from sparsekit.cli.search_options import SearchOptions, TargetOptions, request_of
from sparsekit.cli.stopping import noting

if TYPE_CHECKING:
    from sparsekit.choose.search import Found


@grouped
def choose(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for models, recipes and the report.", metavar="OUT")],
    test: Annotated[
        Path | None, typer.Option(help="Texts that the search does not see, to score what it found.", metavar="FILE")
    ] = None,
    *,
    targets: TargetOptions,
    options: SearchOptions,
) -> None:
    """Choose how much to compress, and how, by measuring.

    Tries sparsities for each layer, 4x1 blocks, int8, fewer layers: searched
    by predicted time on this machine, trained shortly, measured whole beside
    every dense engine that is installed. Prints the points that nothing
    beats, and which to take; OUT/recipes has a recipe for each, report.html
    and choose.json what was measured. A stopped search goes on with the
    same command.

    [bold]sparsekit choose my-classifier --data train.jsonl --test test.jsonl --out choose[/]
    """
    need_training()
    need("report", "jinja2", "matplotlib")
    from sparsekit.choose.search import search

    request = request_of(model, data, out, test, targets, options)
    with noting(f"stopped; the same command goes on from what is in {out}"):
        found = search(request)
    show_found(found)
    print_text(f"wrote {out / 'report.html'}")


def show_found(found: Found) -> None:
    """Print the points of a search, and which to take."""
    from sparsekit.choose.telling import points_table

    console.print(points_table(found.points, found.dense, found.score))
    print_text(" ".join([found.advice, found.untrained_text]).strip())
