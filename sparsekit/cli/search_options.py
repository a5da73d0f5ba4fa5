"""Options of the verbs that search for the compression to take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sparsekit.choose.request import Request


#: Headings of their panels in `--help`.
_TARGETS, _SEARCH = "Targets", "Search"


@dataclass(frozen=True)
class TargetOptions:
    """What the compressed model keeps to."""

    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Part of the dense score that may be lost: 0.01 if left out.",
            metavar="X",
            rich_help_panel=_TARGETS,
        ),
    ] = None
    target_speedup: Annotated[
        float | None,
        typer.Option(min=0.01, help="Over the fastest dense float32 engine.", metavar="X", rich_help_panel=_TARGETS),
    ] = None
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Of one text.", metavar="X", rich_help_panel=_TARGETS)
    ] = None
    max_mb: Annotated[
        float | None, typer.Option(min=0.0, help="Of weights on disk.", metavar="X", rich_help_panel=_TARGETS)
    ] = None


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, and for how long."""

    task: Annotated[str, typer.Option(help="classification or embedding.", metavar="TASK", rich_help_panel=_SEARCH)] = (
        "classification"
    )
    minutes: Annotated[
        float, typer.Option(min=1.0, help="That the search may take.", metavar="X", rich_help_panel=_SEARCH)
    ] = 30.0
    threads: Annotated[int, typer.Option(min=1, help="Of every engine.", metavar="N", rich_help_panel=_SEARCH)] = 1
    text: Annotated[str, typer.Option(help="Column of the texts.", metavar="NAME", rich_help_panel=_SEARCH)] = "text"
    pair: Annotated[
        str | None,
        typer.Option(
            help="Column of second texts; encoders without are scored by fidelity.",
            metavar="NAME",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    label: Annotated[str | None, typer.Option(help="Column of labels.", metavar="NAME", rich_help_panel=_SEARCH)] = None
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longer texts are truncated.", metavar="N", rich_help_panel=_SEARCH)
    ] = 128
    seed: Annotated[
        int, typer.Option(min=0, help="Of splits, search and training.", metavar="N", rich_help_panel=_SEARCH)
    ] = 0


def request_of(
    model: Path, data: Path, out: Path, test: Path | None, targets: TargetOptions, options: SearchOptions
) -> Request:
    """What a search is asked for by these options."""
    from sparsekit.choose.request import Request
    from sparsekit.choose.targets import Targets

    loss = 0.01 if targets.max_loss is None else targets.max_loss
    nbytes = None if targets.max_mb is None else 1e6 * targets.max_mb
    kept = Targets(loss, targets.target_speedup, targets.max_latency_ms, nbytes)
    columns = {"text": options.text, "pair": options.pair, "label": options.label, "max_tokens": options.max_tokens}
    return Request(model, data, out, options.task, test, columns, options.minutes, options.threads, kept, options.seed)
