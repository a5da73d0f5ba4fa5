"""Verbs that train and score: recipes, and recipes of one stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsekit.cli.choosing import show_found
from sparsekit.cli.option_groups import grouped
from sparsekit.cli.options import Data, Model, Out, Task, Test, console, need, need_training, print_text
from sparsekit.cli.search_options import SearchOptions, TargetOptions, request_of
from sparsekit.cli.stopping import noting

if TYPE_CHECKING:
    from sparsekit.choose.request import Request


@grouped
def compress(
    model: Model,
    data: Data,
    out: Out,
    recipe: Annotated[Path | None, typer.Option(help="YAML file: what to do, stage by stage.", metavar="FILE")] = None,
    test: Test = None,
    validation: Annotated[
        Path | None, typer.Option(help="Texts to score on while training, for patience.", metavar="FILE")
    ] = None,
    *,
    targets: TargetOptions,
    options: SearchOptions,
) -> None:
    r"""Compress a model as a recipe says, or to targets.

    A recipe, such as recipe.yaml:

    [bold]task: classification
    data: {text: text, label: label, max_tokens: 128}
    stages:
      - prune: {sparsity: 0.8}
      - distill: {epochs: 5, learning_rate: 5.0e-4}
      - evaluate
      - convert: {dtype: int8}[/]

    The command that runs it:

    [bold]sparsekit compress my-classifier --recipe recipe.yaml \
      --data train.jsonl --test test.jsonl --out compressed[/]

    Stages: finetune, drop_layers, prune_neurons, prune_heads, prune,
    distill, convert, evaluate. Tasks: classification, embedding, language.

    With targets instead of a recipe it searches, as sparsekit choose does,
    and OUT becomes the fastest compressed model that keeps to them:

    [bold]sparsekit compress my-classifier --target-speedup 4 --max-loss 0.01 \
      --data train.jsonl --test test.jsonl --out compressed[/]

    OUT is the model, there when the run is finished, with a report page,
    OUT/report.html. OUT/work has finished stages and checkpoints: the same
    command resumes a stopped run. It may be deleted afterwards.
    """
    need_training()
    if recipe is None:
        _compress_to_targets(request_of(model, data, out, test, _wanted(targets, validation), options))
        return
    if (targets, options) != (TargetOptions(), SearchOptions()):
        raise ValueError("options of a search do not go with --recipe, whose file says what to do; leave one out")
    from sparsekit.recipes import compress as run_recipe

    _show_run(run_recipe(model, recipe, data, out, test=test, validation=validation), out)


def _wanted(targets: TargetOptions, validation: Path | None) -> TargetOptions:
    """The targets, if there are any."""
    if targets == TargetOptions():
        raise ValueError(
            "expected --recipe or a target: --target-speedup, --max-loss, --max-latency-ms or --max-mb, got neither"
        )
    if validation is not None:
        raise ValueError("--validation is for stages of a recipe; with targets, a part of --data is kept to select by")
    return targets


def _compress_to_targets(request: Request) -> None:
    need("report", "jinja2", "matplotlib")
    from sparsekit.choose.delivery import compress_to_targets

    with noting(f"stopped; the same command goes on from what is in {request.out / 'work'}"):
        show_found(compress_to_targets(request))
    print_text(f"wrote {request.out}; choose.html there has all that was measured")


def prune(
    model: Model,
    data: Data,
    out: Out,
    test: Test = None,
    sparsity: Annotated[
        float | None, typer.Option(min=0.0, max=0.999, help="Fraction of zeros; N:M implies it.", metavar="X")
    ] = None,
    criterion: Annotated[
        str, typer.Option(help="sparsegpt, obert, wanda, taylor, fisher or magnitude.", metavar="NAME")
    ] = "sparsegpt",
    mask_structure: Annotated[
        str, typer.Option(help="unstructured, 4x1 blocks, or N:M such as 2:4.", metavar="NAME")
    ] = "unstructured",
    spread: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How far a layer's sparsity may be from --sparsity.", metavar="X")
    ] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Texts to calibrate on.", metavar="N")] = 512,
    task: Task = "classification",
) -> None:
    """Prune a model without training: a recipe of one stage.

    [bold]sparsekit prune my-classifier --sparsity 0.7 --data texts.jsonl --out pruned[/]
    """
    stage = {"sparsity": sparsity, "criterion": criterion, "mask_structure": mask_structure}
    _run_stage(task, {"prune": {**stage, "spread": spread, "samples": samples}}, model, data, out, test)


def distill(
    student: Annotated[Path, typer.Argument(help="Model folder of transformers; its zeros stay.", metavar="STUDENT")],
    teacher: Annotated[Path, typer.Option(help="Model folder of the teacher.", metavar="MODEL")],
    data: Data,
    out: Out,
    test: Test = None,
    epochs: Annotated[float, typer.Option(min=0.0, help="Passes over the texts.", metavar="X")] = 1.0,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="After the warm-up.", metavar="X")] = 1e-4,
    task: Task = "classification",
) -> None:
    """Distill a teacher into a student: a recipe of one stage.

    [bold]sparsekit distill pruned --teacher dense --data texts.jsonl --out student[/]
    """
    stage = {"teacher": teacher, "epochs": epochs, "learning_rate": learning_rate}
    _run_stage(task, {"distill": stage}, student, data, out, test)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder, or a compiled language model.", metavar="MODEL")],
    data: Data,
    task: Task = "classification",
    engine: Annotated[
        bool, typer.Option("--engine", help="Run a folder in the engine, as a compiled file is.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Of dense layers in the engine: float32, int8, int4, ...", metavar="DTYPE")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json, for a compiled file.", metavar="FILE")] = None,
) -> None:
    """Score a model: accuracy and F1; similarity or retrieval; perplexity.

    Columns of the data: text and label; text, pair and perhaps label; text.
    The engine scores language models: the same windows, the same number.
    """
    need_training()
    if engine or (model.is_file() and task == "language"):
        scores = _engine_scores(model, data, task, dtype, tokenizer)
    else:
        if dtype is not None or tokenizer is not None:
            raise typer.BadParameter("--dtype and --tokenizer are for the engine; give --engine, or a compiled file")
        from sparsekit.recipes import evaluate as scores_of

        scores = scores_of(model, data, task)
    for name, value in scores.items():
        console.print(f"{name} {value:.4f}", highlight=False)


def _engine_scores(model: Path, data: Path, task: str, dtype: str | None, tokenizer: Path | None) -> dict[str, float]:
    if task != "language":
        raise typer.BadParameter(f"the engine scores language models, with --task language, got {task}")
    from sparsekit.engine import Generator
    from sparsekit.recipes.data.tables import read_table, rows_of

    small = dtype if dtype in ("int8", "int4") else None
    generator = Generator(model, dtype=dtype, embeddings=small, tokenizer=tokenizer)
    texts = rows_of(read_table(data), data, "text", None, None).texts
    return {"perplexity": generator.perplexity(texts, show_progress=True)}


def plot(
    run: Annotated[Path, typer.Argument(help="OUT of compress, or a log of training (.jsonl).", metavar="RUN")],
) -> None:
    """Plot loss, learning rate, sparsity and score of a run against its steps."""
    need_training()
    need("bench", "matplotlib")
    from sparsekit.recipes.report.plots import draw_run

    for path in draw_run(run):
        print_text(f"wrote {path}")


def _run_stage(task: str, stage: dict[str, Any], model: Path, data: Path, out: Path, test: Path | None) -> None:
    need_training()
    from sparsekit.recipes import compress as run_recipe
    from sparsekit.recipes import make_recipe

    _show_run(run_recipe(model, make_recipe({"task": task, "stages": [stage]}), data, out, test=test), out)


def _show_run(report: dict[str, Any], out: Path) -> None:
    from sparsekit.recipes.report.page import RUN_PAGE
    from sparsekit.recipes.report.text import as_text, comparison_notes, comparison_table

    print_text(as_text(comparison_table(report["comparison"])))
    console.print(comparison_notes(report), highlight=False, markup=False)
    if not report["scores"]:
        console.print("no test data: nothing was scored")
    print_text(f"wrote {out}; {out / 'work'} has its checkpoints, and may be deleted")
    if (out / RUN_PAGE).exists():
        print_text(f"report page: {out / RUN_PAGE}")
