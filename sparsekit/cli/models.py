"""Commands for model folders: convert and verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsekit.cli.options import Ignore, need, print_text
from sparsekit.cli.stopping import noting


def convert(
    model: Annotated[str, typer.Argument(help="Model folder, or a name in the local hub cache.", metavar="MODEL")],
    out: Annotated[Path, typer.Option(help="Folder for the sparse model.", metavar="OUT")],
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16, int8 or int4.", metavar="DTYPE")
    ] = "float32",
    embeddings: Annotated[str, typer.Option(help="Of word embeddings: float32 or int8.", metavar="DTYPE")] = "float32",
    tokens: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tokens in a call, to measure with; several times. Else 1 and 128.", metavar="N"),
    ] = None,
    min_sparsity: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Convert layers from this sparsity on; measure nothing.", metavar="X"),
    ] = None,
    ignore: Ignore = None,
    dense: Annotated[bool, typer.Option("--dense", help="Write every weight dense, for other libraries.")] = False,
    reference: Annotated[
        str | None, typer.Option(help="The model before pruning, to compare outputs with.", metavar="MODEL")
    ] = None,
) -> None:
    """Convert a pruned model: layers become sparse where that is faster here.

    A folder of compressed-tensors with weights in int8 or int4 is
    converted layer by layer; codes and scales stay as they are.

    [bold]sparsekit convert my-pruned-encoder --out sparse --dtype int8[/]
    """
    need("train", "torch", "transformers")
    from sparsekit.importers.compressed_tensors_folder import convert_compressed_tensors, is_quantized_folder
    from sparsekit.io.file_names import SENTENCE_MODULES
    from sparsekit.io.hub_cache import local_folder

    folder = local_folder(model)
    if is_quantized_folder(folder):
        given = (tokens or None, min_sparsity, ignore or None, reference, dense or None)
        if (dtype, embeddings) != ("float32", "float32") or any(option is not None for option in given):
            raise typer.BadParameter(f"the weights of {model} are quantized, and stay as they are: give --out alone")
        with noting(f"stopped; {out} is as it was"):
            convert_compressed_tensors(folder, out)
        print_text(f"wrote {out}")
        return
    sentences = (folder / SENTENCE_MODULES).is_file()
    if sentences:
        need("compress", "sentence_transformers")
    from sparsekit.checkpoint import convert_folder
    from sparsekit.conversion import conversion_report

    with noting(f"stopped; {out} is as it was"):
        converted = convert_folder(
            model,
            out,
            dtype=dtype,
            embeddings=embeddings,
            tokens=tokens,
            min_sparsity=min_sparsity,
            ignore=ignore or (),
            dense=dense,
            reference=reference,
        )
    if not dense:
        print_text(str(conversion_report(converted)))
    print_text(f"wrote {out}")


def verify(
    model: Annotated[
        str, typer.Argument(help="Folder that sparsekit saved, or a name in the local hub cache.", metavar="MODEL")
    ],
) -> None:
    """Check a model folder on this machine; status 1 if it fails.

    Checksums of all files, every sparse layer against float64, and the
    outputs that are stored with the model.
    """
    need("torch", "torch")
    from sparsekit.checkpoint import verify as verify_folder

    report = verify_folder(model)
    print_text(str(report))
    if not report.passed:
        raise typer.Exit(1)
