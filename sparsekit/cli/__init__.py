"""The command line: thin verbs over the library. Heavy imports stay inside the functions."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import sparsekit
from sparsekit.cli.bench import bench_language, bench_layers, bench_model
from sparsekit.cli.choosing import choose
from sparsekit.cli.classifying import classify, rank
from sparsekit.cli.engine import compile_folder, embed
from sparsekit.cli.generating import chat, generate
from sparsekit.cli.machine import demo, info
from sparsekit.cli.models import convert, verify
from sparsekit.cli.options import console
from sparsekit.cli.recipes import compress, distill, evaluate, plot, prune
from sparsekit.cli.reporting import report
from sparsekit.cli.serving import serve
from sparsekit.cli.stopping import Stoppable
from sparsekit.io.atomic_file import printable

app = typer.Typer(
    name="sparsekit",
    help="Make PyTorch language models sparse and run them faster on CPUs.",
    epilog="sparsekit --install-completion completes verbs and options in your shell.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    cls=Stoppable,
)
_VERBS = (info, demo, choose, compress, prune, distill, convert, evaluate, report, verify, plot)
_ENGINE_VERBS = (embed, classify, rank, generate, chat, serve)
for verb in (*_VERBS, *_ENGINE_VERBS):
    app.command()(verb)
app.command("compile")(compile_folder)
bench_app = typer.Typer(no_args_is_help=True, help="Measure dense against sparse on this machine.")
bench_app.command("layers")(bench_layers)
bench_app.command("model")(bench_model)
bench_app.command("language")(bench_language)
app.add_typer(bench_app, name="bench")

#: Exceptions that wrong input raises; shown as one line instead of a traceback.
_USER_ERRORS = (
    ValueError,
    TypeError,
    OSError,
    FloatingPointError,
    ModuleNotFoundError,
    sparsekit.KernelUnavailableError,
)


def run() -> None:
    """Run the command line; wrong input exits with a message and status 1."""
    try:
        app(prog_name="sparsekit")
    except _USER_ERRORS as error:
        text = escape(printable(str(error), keep="\n"))
        Console(stderr=True, emoji=False).print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"sparsekit {sparsekit.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Make PyTorch language models sparse and run them faster on CPUs."""
