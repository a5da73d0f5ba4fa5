"""Film reviews to vectors, tokenizing included, on one thread: a MiniLM pruned to 90% beside dense engines.

.venv/bin/python benchmarks/texts.py benchmarks/results/texts.json --sentences 1500 --reviews 200 --rounds 5

Two sets of texts, sentences alone and with whole reviews among them, each in batches and one at a time. All engines run
interleaved in one process. Needs the extra `peers`. Without options it measures a part of the texts, in minutes.
"""

from __future__ import annotations

import functools
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pruned_minilm import SPARSITY, write_pruned
from rich.console import Console
from rich.table import Table
from text_engines import ENGINES, MOST_TOKENS, Encode

from sparsekit import keep_freed_memory
from sparsekit.bench.affinity import limited_to
from sparsekit.bench.film_reviews import load_splits
from sparsekit.bench.layers.report import usable_engines
from sparsekit.bench.peer import answers_wrongly
from sparsekit.bench.summary import remarks
from sparsekit.io.atomic_file import write_json
from sparsekit.runtime.environment import environment
from sparsekit.timing.comparing import compare

REFERENCE = next(iter(ENGINES))
#: Texts of each set whose vectors are compared, and compared again one at a time.
CHECKED, CHECKED_ALONE = 64, 4

console = Console()


def text_sets(sentences: int, reviews: int) -> dict[str, list[str]]:
    """The sets of texts by name."""
    splits = load_splits()
    short = [row["text"] for row in splits.test[:sentences]]
    mixed = short + [row["text"] for row in splits.imdb[:reviews]]
    random.Random(0).shuffle(mixed)  # noqa: S311 - an order, not a secret
    return {"sentences": short, "sentences and reviews": mixed}


def one_at_a_time(encode: Encode, texts: Sequence[str]) -> Any:
    return np.concatenate([encode([text]) for text in texts])


#: How texts reach an engine.
WAYS = {"batches": lambda encode, texts: encode(texts), "one at a time": one_at_a_time}


def cosine_errors(found: Any, expected: Any) -> Any:
    """1 - cosine of each vector; both are of length 1."""
    return 1.0 - (found.astype(np.float64) * expected).sum(axis=1)


def error_of(encode: Encode, expected: Any, texts: Sequence[str]) -> Any:
    """Errors of all texts in batches, and of some one at a time."""
    alone = cosine_errors(one_at_a_time(encode, texts[:CHECKED_ALONE]), expected[:CHECKED_ALONE])
    return np.concatenate([cosine_errors(encode(texts), expected), alone])


def open_engines(names: Sequence[str], place: Path, texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Engines by name: encoding function, largest error of a cosine, and whether that exceeds the tolerance.

    An engine with wrong outputs is followed by its remedy.
    """
    folders = {block: write_pruned(place / block, block) for block in {ENGINES[name].block for name in names}}
    expected = {block: ENGINES[REFERENCE].open(folder)(texts) for block, folder in folders.items()}
    found: dict[str, dict[str, Any]] = {}
    waiting = list(names)
    for name in waiting:
        engine = ENGINES[name]
        console.print(f"prepare {name}")
        encode = engine.open(folders[engine.block])
        error = error_of(encode, expected[engine.block], texts)
        wrong = answers_wrongly(name, error, np.array(engine.tolerance))
        found[name] = {"encode": encode, "error": float(error.max()), "wrong": wrong}
        if wrong and engine.remedy and engine.remedy not in waiting:
            waiting.append(engine.remedy)
    return found


def measure(engines: dict[str, dict[str, Any]], texts: Sequence[str], way: str, rounds: int) -> list[dict[str, Any]]:
    """One row for each engine."""
    calls = {name: functools.partial(WAYS[way], one["encode"], texts) for name, one in engines.items()}
    timings = compare(calls, seconds=0.0, least_rounds=rounds)
    return [
        {
            "way": way,
            "engine": name,
            "texts": len(texts),
            "ms_a_text": 1e3 * timing.median / len(texts),
            "low_ms": 1e3 * timing.low / len(texts),
            "high_ms": 1e3 * timing.high / len(texts),
            "noisy": timing.noisy,
            "error": engines[name]["error"],
            "wrong": engines[name]["wrong"],
        }
        for name, timing in timings.items()
    ]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table for each set of texts and way."""
    tables: dict[str, Table] = {}
    for row in rows:
        title = f"{row['texts']} {row['set']}, {row['way']}"
        if title not in tables:
            tables[title] = Table("engine", "ms a text", "quartiles", "texts/s", "1 - cosine", title=title)
        tables[title].add_row(
            row["engine"],
            f"{row['ms_a_text']:.2f}",
            f"{row['low_ms']:.2f}-{row['high_ms']:.2f}{remarks(row)}",
            f"{1e3 / row['ms_a_text']:.0f}",
            f"{row['error']:.0e}",
        )
    for table in tables.values():
        console.print(table)


def main(
    file: Annotated[Path, typer.Argument(help="JSON file to write.")],
    sentences: Annotated[int, typer.Option(min=1, max=1500, help="Film-review sentences.")] = 100,
    reviews: Annotated[int, typer.Option(min=1, max=20000, help="Whole reviews among them.")] = 12,
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes over the texts, after two to warm up.")] = 3,
    engine: Annotated[list[str] | None, typer.Option(help="Engines to measure; else the installed ones.")] = None,
) -> None:
    """Measure and write."""
    keep_freed_memory()
    default = [name for name in ENGINES if not name.endswith("reduce-range")]
    names = usable_engines(ENGINES, engine, default, console)
    sets = text_sets(sentences, reviews)
    rows = []
    with tempfile.TemporaryDirectory() as place, limited_to(1):
        engines = open_engines(names, Path(place), sets["sentences and reviews"][:CHECKED])
        for kind, texts in sets.items():
            for way in WAYS:
                console.print(f"measure {len(texts)} {kind}, {way}")
                rows += [{"set": kind, **row} for row in measure(engines, texts, way, rounds)]
    show(rows)
    model = {"model": "all-MiniLM-L6-v2", "sparsity": SPARSITY, "most_tokens": MOST_TOKENS, "threads": 1}
    size = {"sentences": sentences, "reviews": reviews, "rounds": rounds}
    write_json(file, {"environment": environment(), "command": sys.argv, **model, **size, "rows": rows})
    console.print(f"wrote {file}")


if __name__ == "__main__":
    typer.run(main)
