"""How well `sparsekit.choose` predicts times of a whole MiniLM: random sparsities, predicted and measured.

    .venv/bin/python benchmarks/choose_times.py FILE.json   # minutes, on a machine that does nothing else

Weights are pruned by magnitude, each layer to a sparsity of its own. Times of products are measured anew, in a cache
folder that is deleted. torch is not loaded: threads are those of the library.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.bench.minilm import minilm_folder
from sparsekit.choose.assignments.levels import FORMS, SPARSITIES, Form
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.imposed_weights import compile_with
from sparsekit.choose.times.model_times import ModelTimes, fit_whole
from sparsekit.choose.times.products import ModelProducts, products_of
from sparsekit.choose.times.table import measure_times
from sparsekit.choose.times.whole_models import measure_whole
from sparsekit.formats.csr import BLOCKS
from sparsekit.io.atomic_file import write_json
from sparsekit.progress import Progress
from sparsekit.runtime.environment import environment

CALLS = (Call(1, 16), Call(16, 128))


def pruned(sparsity: float, block: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A weight without its least blocks, by the sum of their magnitudes."""
    height = BLOCKS[block]
    sums = np.add.reduceat(np.abs(weight), np.arange(0, len(weight), height))
    least = np.argsort(sums, axis=None)[: round(sparsity * sums.size)]
    keep = np.ones(sums.size, np.bool_)
    keep[least] = False
    return np.where(np.repeat(keep.reshape(sums.shape), height, axis=0)[: len(weight)], weight, np.float32(0))


def random_assignments(products: ModelProducts, count: int, seed: int) -> list[dict[str, int]]:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, len(SPARSITIES), (count, len(products.layers)))
    return [dict(zip(products.layers, map(int, row), strict=True)) for row in levels]


def compiled(assignment: Mapping[str, int], form: Form) -> NDArray[np.uint8]:
    changes = {layer: partial(pruned, SPARSITIES[level], form.block) for layer, level in assignment.items()}
    return compile_with(minilm_folder(), changes, dtype=form.dtype)


def compared(
    times: ModelTimes, form: Form, assignments: Sequence[Mapping[str, int]], seconds: float
) -> Iterator[dict[str, Any]]:
    """A row for every assignment and call."""
    models = {str(number): compiled(assignment, form) for number, assignment in enumerate(assignments)}
    for call in CALLS:
        timings = measure_whole(models, call, decodes=False, seconds=seconds, at_most=4 * seconds)
        for number, assignment in enumerate(assignments):
            timing = timings[str(number)]
            yield {
                "form": str(form),
                "call": str(call),
                "levels": list(assignment.values()),
                "predicted": times.predicted(assignment, form, call),
                "measured": timing.low,
                "quartiles": [timing.low, timing.median, timing.high],
                "noisy": timing.noisy,
            }


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Relative errors by form and call."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        error = row["predicted"] / row["measured"] - 1.0
        groups.setdefault((row["form"], row["call"]), []).append(error)
    return [
        {"form": form, "call": call, "median_error": median(map(abs, errors)), "errors": errors}
        for (form, call), errors in groups.items()
    ]


def main(
    out: Annotated[Path, typer.Argument(help="JSON file to write.", metavar="FILE")],
    assignments: Annotated[int, typer.Option(min=1, help="Random assignments in each form.")] = 10,
    forms: Annotated[int, typer.Option(min=1, max=len(FORMS), help="Forms, the first ones.")] = len(FORMS),
    threads: Annotated[int, typer.Option(min=1, help="Threads of the library.")] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds for each whole model.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the assignments.")] = 0,
) -> None:
    """Measure the table and the rest, then whole models."""
    runtime.set_num_threads(threads)
    products = products_of(minilm_folder())
    chosen = FORMS[:forms]
    with tempfile.TemporaryDirectory() as cache, Progress[Any](title="measure", unit="times") as progress:
        os.environ["XDG_CACHE_HOME"] = cache
        table = measure_times(products, chosen, CALLS, progress=lambda *_: progress.update())
    times = ModelTimes(table, fit_whole(minilm_folder(), table, (form.dtype for form in chosen), CALLS))
    given = random_assignments(products, assignments, seed)
    rows = [row for form in chosen for row in compared(times, form, given, seconds)]
    fits = [{"dtype": dtype, "call": str(call), **asdict(fit)} for (dtype, call), fit in times.fits.items()]
    found = summary(rows)
    write_json(out, {"environment": environment(), "layers": list(products.layers), "sparsities": list(SPARSITIES),
                     "seed": seed, "fits": fits, "summary": found, "rows": rows})  # fmt: skip
    for one in found:
        print(f"{one['form']:12} {one['call']:8} median error {one['median_error']:.1%}, "
              f"{min(one['errors']):+.1%} to {max(one['errors']):+.1%}")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
