"""Commands of the engine: compile a model, embed texts."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsekit.cli.options import EngineModel, PoolThreads, need, print_text
from sparsekit.cli.stopping import noting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def compile_folder(
    model: Annotated[str, typer.Argument(help="Model folder, or a name in the local hub cache.", metavar="MODEL")],
    out: Annotated[Path, typer.Option(help="File to write.", metavar="OUT")],
    dtype: Annotated[
        str, typer.Option(help="Of dense layers: float32, bfloat16, float16, int8, int4.", metavar="DTYPE")
    ] = "float32",
    embeddings: Annotated[
        str | None, typer.Option(help="Of word embeddings: float32, int8, int4; else as in MODEL.", metavar="DTYPE")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls or max; else what the folder says.", metavar="POOLING")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="Where it is to be fastest: native, measured here; or, by rule, avx2, avx512, neon.", metavar="TARGET"
        ),
    ] = "native",
) -> None:
    """Compile an encoder or a language model into one file.

    It runs without torch.

    [bold]sparsekit compile my-sparse-encoder --out encoder.bin[/]
    """
    from sparsekit.engine import compile_model
    from sparsekit.wording import size_text

    with noting(f"stopped; {out} is as it was"):
        measured = target == "native"
        made = compile_model(
            model, out, dtype=dtype, embeddings=embeddings, pooling=pooling, target=target, measure=measured
        )
    print_text(f"wrote {out}, {size_text(made.nbytes)}, {made.bits_per_weight:.2f} bits a weight")


def embed(
    model: EngineModel,
    out: Annotated[
        Path | None, typer.Option(help="File for the vectors, .npy; else standard output.", metavar="OUT")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json, for a compiled file.", metavar="FILE")] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls or max; else what the folder says.", metavar="POOLING")
    ] = None,
    threads: PoolThreads = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens that are computed together; else 256 a thread.", metavar="N")
    ] = None,
    cache: Annotated[bool, typer.Option(help="Compile a folder once, into the user's cache.")] = False,
) -> None:
    """Embed texts, a line each, from standard input into an .npy file.

    [bold]sparsekit embed my-encoder --out vectors.npy < texts.txt[/]
    """
    need("engine", "tokenizers")
    from sparsekit.engine import Encoder
    from sparsekit.io.atomic_file import write_atomically

    encoder = Encoder(model, tokenizer=tokenizer, pooling=pooling, threads=threads, cache=cache)
    texts = [line.removesuffix("\n") for line in sys.stdin]
    content = _npy(encoder.encode(texts, batch_tokens=batch_tokens, show_progress=True))
    if out is None:
        sys.stdout.buffer.write(content)
    else:
        write_atomically(out, lambda temporary: temporary.write_bytes(content))


def _npy(array: NDArray[np.float32]) -> memoryview:
    """Contents of an .npy file, since numpy does not write to pipes."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, array)
    return file.getbuffer()
