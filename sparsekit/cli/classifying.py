"""Commands of the engine: classify texts, rank documents."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsekit.cli.options import EngineModel, PoolThreads, need

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sparsekit.engine import Encoder

_Tokenizer = Annotated[
    Path | None, typer.Option(help="tokenizer.json, for a compiled file; labels come from beside it.", metavar="FILE")
]


def classify(
    model: EngineModel,
    tokenizer: _Tokenizer = None,
    aggregation: Annotated[
        str, typer.Option(help="Of tokens to spans: none, simple, first, average or max.", metavar="HOW")
    ] = "simple",
    pairs: Annotated[bool, typer.Option("--pairs", help="A line holds two texts with a tab between.")] = False,
    threads: PoolThreads = None,
) -> None:
    """Label texts, a line each, from standard input: a JSON line each.

    Classifiers of texts give a label, its score and all probabilities,
    those of tokens a list of spans.

    [bold]sparsekit classify my-classifier < texts.txt[/]
    """
    encoder = _encoder(model, tokenizer, threads)
    lines = [line.removesuffix("\n") for line in sys.stdin]
    if encoder.task == "token_classification":
        spans = encoder.classify_tokens(lines, aggregation=aggregation, show_progress=True)
        _print_json([asdict(span) for span in one] for one in spans)
    else:
        texts = [_pair(number, line) for number, line in enumerate(lines, 1)] if pairs else lines
        _print_json(asdict(one) for one in encoder.classify(texts, show_progress=True))


def rank(
    model: EngineModel,
    query: Annotated[str, typer.Option(help="What the documents should answer.", metavar="TEXT")],
    tokenizer: _Tokenizer = None,
    threads: PoolThreads = None,
) -> None:
    """Rank documents, a line each, from standard input, best first.

    A line of the result is a score, a tab and the document.

    [bold]sparsekit rank my-reranker --query "..." < documents.txt[/]
    """
    encoder = _encoder(model, tokenizer, threads)
    documents = [line.removesuffix("\n") for line in sys.stdin]
    scores = encoder.rank(query, documents, show_progress=True)
    for number in (-scores).argsort(kind="stable"):
        print(f"{scores[number]:.6g}\t{documents[number]}")


def _encoder(model: str, tokenizer: Path | None, threads: int | None) -> Encoder:
    need("engine", "tokenizers")
    from sparsekit.engine import Encoder

    return Encoder(model, tokenizer=tokenizer, threads=threads)


def _print_json(values: Iterable[Any]) -> None:
    for value in values:
        print(json.dumps(value, ensure_ascii=False))


def _pair(number: int, line: str) -> tuple[str, str]:
    first, tab, second = line.partition("\t")
    if not tab:
        raise ValueError(f"line {number} must hold two texts with a tab between, got {line!r:.80}")
    return first, second
