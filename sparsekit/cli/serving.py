"""Command of the server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from sparsekit.cli.option_groups import grouped
from sparsekit.cli.options import PoolThreads, need
from sparsekit.serve.limits import Limits

_DEFAULT = Limits()


@dataclass(frozen=True)
class EngineOptions:
    """How models are opened: arguments of `ModelOptions`."""

    dtype: Annotated[
        str | None, typer.Option(help="Of dense layers: float32, bfloat16, float16, int8, int4.", metavar="DTYPE")
    ] = None
    embeddings: Annotated[
        str | None, typer.Option(help="Of word embeddings: float32, int8, int4; else as in FOLDER.", metavar="DTYPE")
    ] = None
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls or max; else what the folder says.", metavar="POOLING")
    ] = None
    cache: Annotated[bool, typer.Option(help="Compile encoders once, into the user's cache.")] = False
    context: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a generated text, with its prompt.", metavar="N")
    ] = None
    cache_dtype: Annotated[
        str, typer.Option(help="Of kept keys and values: float32, bfloat16 or int8.", metavar="DTYPE")
    ] = "float32"


@dataclass(frozen=True)
class LimitOptions:
    """Limits: arguments of `Limits`."""

    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="How long a text waits for others to fill a batch.", metavar="MS")
    ] = _DEFAULT.max_wait_ms
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a batch; else 256 a thread.", metavar="N")
    ] = None
    queue_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that a model's queue holds; more are refused.", metavar="N")
    ] = _DEFAULT.queue_tokens
    running_texts: Annotated[
        int, typer.Option(min=1, help="Texts that a language model generates at a time.", metavar="N")
    ] = _DEFAULT.running_texts
    texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.", metavar="N")] = _DEFAULT.texts
    text_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a text.", metavar="N")] = _DEFAULT.text_bytes
    body_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request.", metavar="N")] = _DEFAULT.body_bytes
    bodies_bytes: Annotated[
        int, typer.Option(min=1, help="Most bytes of all requests that are being answered.", metavar="N")
    ] = _DEFAULT.bodies_bytes
    body_seconds: Annotated[
        float, typer.Option(min=0, help="How long a client may take to send a request.", metavar="S")
    ] = _DEFAULT.body_seconds
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long requests may take to end after SIGTERM.", metavar="S")
    ] = _DEFAULT.drain_seconds


@dataclass(frozen=True)
class NetworkOptions:
    """Where the server listens, and who may ask: arguments of `serve`."""

    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of them.", metavar="ADDRESS")] = (
        "127.0.0.1"
    )
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.", metavar="PORT")] = 8000
    api_key: Annotated[
        str | None,
        typer.Option(help="Key that requests must give.", metavar="KEY", envvar="SPARSEKIT_API_KEY"),
    ] = None
    certificate: Annotated[
        Path | None, typer.Option(help="TLS certificate, PEM; else plain HTTP.", metavar="FILE", exists=True)
    ] = None
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.", metavar="FILE", exists=True)] = None
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")] = "info"


@grouped
def serve(
    folders: Annotated[
        list[str], typer.Argument(help="Model folders, or names in the local hub cache.", metavar="FOLDER...")
    ],
    network: NetworkOptions,
    options: EngineOptions,
    limits: LimitOptions,
    threads: PoolThreads = None,
) -> None:
    """Serve models over HTTP, as clients of OpenAI and Cohere expect.

    Embeddings, labels, ranks, completions, chats; a page at / and the
    interface at /docs. SIGTERM or Ctrl-C answers what was accepted first.

    [bold]sparsekit serve my-sparse-encoder --port 8000[/]
    """
    need("serve", "starlette", "uvicorn", "msgspec", "prometheus_client", "tokenizers")
    from sparsekit import runtime
    from sparsekit.engine.batches import THREAD_TOKENS
    from sparsekit.serve.opening import ModelOptions
    from sparsekit.serve.running import serve as run

    if threads is not None:
        runtime.set_num_threads(threads)
    given = asdict(limits)
    given["batch_tokens"] = limits.batch_tokens or THREAD_TOKENS * runtime.num_threads()
    run(folders, options=ModelOptions(**asdict(options)), limits=Limits(**given), **asdict(network))
