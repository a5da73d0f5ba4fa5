"""Shared by all commands: options, checks for extras, the console."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from sparsekit.extras import how_to_install

console = Console()

# Options of several commands. In every command the model comes first, then --data, --test, --out, --recipe.
Model: TypeAlias = Annotated[Path, typer.Argument(help="Model folder of transformers.", metavar="MODEL")]
Data: TypeAlias = Annotated[
    Path, typer.Option(help="Texts: .jsonl, .csv, .parquet, .txt or a folder of datasets.", metavar="FILE")
]
Test: TypeAlias = Annotated[
    Path | None, typer.Option(help="Texts to score on; a part of --data if left out.", metavar="FILE")
]
Out: TypeAlias = Annotated[
    Path, typer.Option(help="Folder for the model, with report.json; checkpoints in OUT/work.", metavar="OUT")
]
Task: TypeAlias = Annotated[str, typer.Option(help="classification, embedding or language.", metavar="TASK")]
Ignore: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="Layers that stay dense: names or re:PATTERN.", metavar="NAME")
]
Threads: TypeAlias = Annotated[
    list[int] | None, typer.Option(min=1, help="Threads, and processors, of every engine.", metavar="N")
]
# Options of the engine's commands.
EngineModel: TypeAlias = Annotated[
    str, typer.Argument(help="Model folder, a name in the local hub cache, or a compiled file.", metavar="MODEL")
]
PoolThreads: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Threads; else one a processor.", metavar="N")]
Json: TypeAlias = Annotated[Path | None, typer.Option(help="Write the measurements here.", metavar="FILE")]


def need(extra: str, *modules: str) -> None:
    """Exit with installation instructions unless the modules are installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        text = f"this command needs {', '.join(missing)}: {how_to_install(extra)}"
        Console(stderr=True).print(text, markup=False, soft_wrap=True)
        raise typer.Exit(1)


def pair_of(text: str, form: str) -> tuple[int, int]:
    """Two numbers such as 1536x384."""
    first, _, second = text.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise typer.BadParameter(f"expected {form}, got {text!r}")
    return int(first), int(second)


def print_text(text: str) -> None:
    """Print text verbatim: already wrapped, or untrusted."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def need_training() -> None:
    """Exit unless the extra `compress` is installed."""
    need("compress", "torch", "transformers", "datasets", "pydantic", "scipy", "yaml")
