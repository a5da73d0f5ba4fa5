"""Commands of the engine: continue a prompt, chat."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsekit.cli.option_groups import grouped
from sparsekit.cli.options import EngineModel, PoolThreads, need

if TYPE_CHECKING:
    from sparsekit.engine import Completion, Generator, Stream

#: Lines that end a chat, as the end of its input does.
_EXIT = "/exit"


@dataclass(frozen=True)
class ModelOptions:
    """Options for opening a model: arguments of `Generator`."""

    tokenizer: Annotated[
        Path | None,
        typer.Option(help="tokenizer.json, for a compiled file; its options lie beside it.", metavar="FILE"),
    ] = None
    dtype: Annotated[
        str | None, typer.Option(help="Of dense layers: float32, bfloat16, float16, int8, int4.", metavar="DTYPE")
    ] = None
    embeddings: Annotated[
        str | None, typer.Option(help="Of word embeddings: float32, int8, int4; else as in MODEL.", metavar="DTYPE")
    ] = None
    context: Annotated[
        int | None, typer.Option(min=1, help="Most tokens, with the prompt; else what MODEL allows.", metavar="N")
    ] = None
    cache_dtype: Annotated[
        str, typer.Option(help="Of kept keys and values: float32, bfloat16 or int8.", metavar="DTYPE")
    ] = "float32"
    threads: PoolThreads = None


@dataclass(frozen=True)
class TextOptions:
    """Options for generation: arguments of `Generator.stream`."""

    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.", metavar="N")] = 256
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; may be given several times.", metavar="TEXT")
    ] = None
    temperature: Annotated[
        float | None, typer.Option(help="0: the most probable token; above: sample.", metavar="X")
    ] = None
    top_k: Annotated[int | None, typer.Option(help="Sample from the K best tokens; 0: all.", metavar="K")] = None
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the fewest tokens of this probability.", metavar="X")
    ] = None
    min_p: Annotated[
        float | None, typer.Option(help="Sample from tokens so probable, the best being 1.", metavar="X")
    ] = None
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: tokens of the text become less probable.", metavar="X")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="The same one gives the same text.", metavar="N")] = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `Generator.stream`."""
        return {**asdict(self), "stop": self.stop or ()}


@grouped
def generate(
    model: EngineModel,
    opening: ModelOptions,
    options: TextOptions,
    prompt: Annotated[
        str, typer.Argument(help="What to continue; - or nothing: standard input.", metavar="PROMPT")
    ] = "-",
) -> None:
    """Continue a prompt with a language model, to standard output.

    What is left out is as generation_config.json of MODEL says. Speed and
    memory follow on standard error. Ctrl-C ends the text.

    [bold]sparsekit generate my-language-model "Once upon a time"[/]
    """
    need("engine", "tokenizers")
    generator = _open(model, opening)
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    stream = generator.stream(text, **options.arguments())
    ended = _print_pieces(stream)
    print(_figures(stream.completion), file=sys.stderr)
    if not ended:
        raise KeyboardInterrupt


@grouped
def chat(
    model: EngineModel,
    opening: ModelOptions,
    options: TextOptions,
    system: Annotated[str | None, typer.Option(help="What the model is told before the chat.", metavar="TEXT")] = None,
) -> None:
    """Chat with a language model: a line from standard input, an answer.

    Needs the chat template of MODEL. Ctrl-C ends an answer; /exit, the
    end of the input or Ctrl-C where it waits for a line ends the chat.

    [bold]sparsekit chat my-language-model --system "Be brief."[/]
    """
    need("engine", "tokenizers", "jinja2")
    generator = _open(model, opening)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for line in _lines():
        messages.append({"role": "user", "content": line})
        stream = generator.stream_chat(messages, **options.arguments())
        _print_pieces(stream)
        messages.append({"role": "assistant", "content": stream.completion.text})


def _open(model: str, options: ModelOptions) -> Generator:
    from sparsekit.engine import Generator

    return Generator(model, **asdict(options))


def _lines() -> Iterator[str]:
    """Nonempty lines from the terminal or a file, until the end of input or a line that ends the chat."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == _EXIT:
            return
        if line.strip():
            yield line.removesuffix("\n")


def _print_pieces(stream: Stream) -> bool:
    """Print a text as it is generated; return False if Ctrl-C ended it."""
    ended = True
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        stream.close()
        ended = False
    print(flush=True)
    return ended


def _figures(done: Completion) -> str:
    """Speed and memory of a generation, in one line."""
    from sparsekit.runtime import resident_bytes
    from sparsekit.wording import counted, size_text

    told = [f"prompt of {counted(done.prompt_tokens, 'token')}, {done.reused_tokens} reused"]
    if done.tokens:
        computed = done.prompt_tokens - done.reused_tokens
        told.append(f"prefill {_rate(computed, done.first_token_seconds)}")
        told.append(f"first token after {done.first_token_seconds:.3g} s")
    if len(done.tokens) > 1:
        decoding = _rate(len(done.tokens) - 1, done.seconds - done.first_token_seconds)
        told.append(f"decoding {decoding}, {counted(len(done.tokens), 'token')}")
    resident = resident_bytes()
    if resident is not None:
        told.append(f"resident memory {size_text(resident)}")
    return "; ".join(told)


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:,.3g} tokens/s" if seconds > 0 else "too fast to time"
