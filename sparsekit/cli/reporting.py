"""The command `sparsekit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsekit.cli.options import Json, Threads, console, need, need_training, pair_of, print_text


def report(
    model: Annotated[
        str,
        typer.Argument(help="Model folder, a name in the local hub cache, or a compiled encoder.", metavar="FOLDER"),
    ],
    dense: Annotated[
        str | None, typer.Option(help="Folder of the model before compression, to compare with.", metavar="MODEL")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Texts to score both on.", metavar="FILE")] = None,
    out: Annotated[Path, typer.Option(help="The page to write.", metavar="FILE")] = Path("report.html"),
    json: Json = None,
    task: Annotated[
        str | None, typer.Option(help="classification or embedding; else what FOLDER is.", metavar="TASK")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longer texts of --test are truncated; else as FOLDER's recipe says.", metavar="N"),
    ] = None,
    input: Annotated[
        list[str] | None, typer.Option(help="Texts and tokens of each in a call.", metavar="TEXTSxTOKENS")
    ] = None,
    threads: Threads = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="Dense engines to compare with; else the installed ones.", metavar="NAME")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each input and number of threads.", metavar="S")] = 10.0,
) -> None:
    """Measure a compressed encoder and write a page about it.

    Speed in sparsekit.engine and in PyTorch against every installed engine,
    quality against the dense model, how each layer is stored, memory and
    disk. --input, --threads and --engine may be given several times.

    Columns of the test data: text and label; text, pair and perhaps label.

    [bold]sparsekit report small --dense my-classifier --test test.jsonl[/]
    """
    need("report", "jinja2", "matplotlib")
    need_training()
    from sparsekit.bench.layers.report import usable_engines
    from sparsekit.bench.models.peers import DENSE_ENGINES, MODEL_PEERS
    from sparsekit.bench.report.measuring import Request, measured
    from sparsekit.bench.report.times import TimeGrid
    from sparsekit.io.atomic_file import write_json
    from sparsekit.report.building import page_of
    from sparsekit.report.page import write_page
    from sparsekit.runtime.memory import keep_freed_memory

    default = TimeGrid()
    grid = TimeGrid(
        [pair_of(text, "TEXTSxTOKENS such as 16x128") for text in input] if input else default.inputs,
        threads or default.threads,
        usable_engines({name: MODEL_PEERS[name] for name in DENSE_ENGINES}, engine, DENSE_ENGINES, console),
        seconds,
    )
    keep_freed_memory()  # torch has no pool of its own, as the other engines have
    facts = measured(Request(model, dense, test, task, grid, out, max_tokens))
    if json is not None:
        write_json(json, facts.to_json())
        print_text(f"wrote {json}")
    page = page_of(facts)
    write_page(page, out)
    print_text("\n".join(page.headline))
    print_text(f"wrote {out}")
