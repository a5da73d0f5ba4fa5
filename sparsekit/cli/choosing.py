"""The verb that searches for the compression to take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsekit.cli.options import Data, Model, console, need, need_training, print_text
from sparsekit.cli.stopping import noting


def choose(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for models, recipes and the report.", metavar="OUT")],
    test: Annotated[
        Path | None, typer.Option(help="Texts that the search does not see, to score what it found.", metavar="FILE")
    ] = None,
    task: Annotated[str, typer.Option(help="classification or embedding.", metavar="TASK")] = "classification",
    minutes: Annotated[float, typer.Option(min=1.0, help="That the search may take.", metavar="X")] = 30.0,
    threads: Annotated[int, typer.Option(min=1, help="Of every engine.", metavar="N")] = 1,
    max_loss: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Part of the dense score that may be lost.", metavar="X")
    ] = 0.01,
    target_speedup: Annotated[
        float | None, typer.Option(min=0.01, help="Over the fastest dense float32 engine.", metavar="X")
    ] = None,
    max_latency_ms: Annotated[float | None, typer.Option(min=0.0, help="Of one text.", metavar="X")] = None,
    max_mb: Annotated[float | None, typer.Option(min=0.0, help="Of weights on disk.", metavar="X")] = None,
    text: Annotated[str, typer.Option(help="Column of the texts.", metavar="NAME")] = "text",
    pair: Annotated[str | None, typer.Option(help="Column of second texts.", metavar="NAME")] = None,
    label: Annotated[str | None, typer.Option(help="Column of labels.", metavar="NAME")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer texts are truncated.", metavar="N")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, search and training.", metavar="N")] = 0,
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
    from sparsekit.choose.request import Request
    from sparsekit.choose.search import search
    from sparsekit.choose.targets import Targets
    from sparsekit.choose.telling import points_table

    targets = Targets(max_loss, target_speedup, max_latency_ms, None if max_mb is None else 1e6 * max_mb)
    columns = {"text": text, "pair": pair, "label": label, "max_tokens": max_tokens}
    request = Request(model, data, out, task, test, columns, minutes, threads, targets, seed)
    with noting(f"stopped; the same command goes on from what is in {out}"):
        found = search(request)
    console.print(points_table(found.points, found.dense))
    print_text(" ".join([found.advice, found.untrained_text]).strip())
    print_text(f"wrote {out / 'report.html'}")
