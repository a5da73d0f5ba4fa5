"""Cost of a process that serves a MiniLM pruned to 90%: start-up time, memory, processor time while idle.

.venv/bin/python benchmarks/processes.py benchmarks/results/processes.json

The compiled model in int8, its word embeddings too, beside ONNX Runtime's dynamic int8 of the same weights. Every
number is of fresh processes without torch. Needs Linux, and the extra `peers`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from process_child import SENTENCE

from sparsekit.bench.peer import answers_wrongly
from sparsekit.engine import compile_model
from sparsekit.engine.tokenizing import TOKENIZER
from sparsekit.io.atomic_file import write_json
from sparsekit.runtime.environment import environment

BEGIN = time.perf_counter()
CHILD = Path(__file__).with_name("process_child.py")
OURS, PEER = "sparsekit-engine-int8", "onnxruntime-int8"
#: Engine -> its model, and the folder that they are made of.
FILES = {OURS: "encoder.sparsekit", PEER: "encoder-int8.onnx"}
FOLDER = "pruned"
#: Tolerance of 1 - cosine to torch's vector.
TOLERANCE = 0.05
#: Processes that share a model.
SHARING = 4


class Case:
    """An engine with its model file."""

    def __init__(self, engine: str, model: Path, tokenizer: Path) -> None:
        self.engine, self.model, self.tokenizer = engine, model, tokenizer

    def command(self, job: str, number: float) -> list[str]:
        """What runs a job in a process of its own."""
        return [sys.executable, str(CHILD), job, self.engine, str(self.model), str(self.tokenizer), str(number)]

    def run(self, job: str, number: float = 0.0) -> dict[str, Any]:
        """What a job reports."""
        done = subprocess.run(self.command(job, number), check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def step(text: str) -> None:
    print(f"{time.perf_counter() - BEGIN:6.0f} s  {text}", file=sys.stderr, flush=True)


def write_models(place: Path) -> tuple[Any, float]:
    """Write the models of all engines; returns the vector that torch computes for the sentence, and the sparsity."""
    from pruned_minilm import SPARSITY, open_sentences, write_onnx, write_onnx_int8, write_pruned

    folder = write_pruned(place / FOLDER)
    compile_model(folder, place / FILES[OURS], dtype="int8", embeddings="int8")
    write_onnx_int8(write_onnx(folder, place / "model.onnx")).rename(place / FILES[PEER])
    return open_sentences(folder).encode([SENTENCE], show_progress_bar=False)[0], SPARSITY


def prepare(place: Path) -> tuple[list[Case], Any, float]:
    """Both engines with their models, the vector and the sparsity.

    They are written by a process of their own, so that this one shares few libraries with those that are measured.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        vector, sparsity = pool.submit(write_models, place).result()
    cases = [Case(engine, place / file, place / FOLDER / TOKENIZER) for engine, file in FILES.items()]
    return cases, vector, sparsity


def middle(rows: Sequence[dict[str, Any]], name: str) -> Any:
    return statistics.median(row[name] for row in rows)


def started(cases: Sequence[Case], repeats: int, expected: Any) -> dict[str, dict[str, Any]]:
    """Medians over fresh processes, interleaved, after one uncounted process for each engine."""
    rows: dict[str, list[dict[str, Any]]] = {case.engine: [] for case in cases}
    for number in range(repeats + 1):
        for case in cases:
            begin = time.perf_counter()
            row = case.run("start")
            if number:
                rows[case.engine].append({**row, "seconds": time.perf_counter() - begin})
    return {engine: summary_of_starts(engine, found, expected) for engine, found in rows.items()}


def summary_of_starts(engine: str, rows: Sequence[dict[str, Any]], expected: Any) -> dict[str, Any]:
    names = ("seconds", "seconds_to_open", "seconds_to_answer", "resident", "peak", "anonymous", "of_files")
    error = 1.0 - np.array(rows[0]["vector"]) @ expected
    seconds = [row["seconds"] for row in rows]
    return {
        **{name: middle(rows, name) for name in names},
        "seconds_range": [min(seconds), max(seconds)],
        "error": float(error),
        "wrong": answers_wrongly(engine, np.array([error]), np.array(TOLERANCE)),
    }


def proportional(process: int) -> int:
    """Bytes of a process's memory, what several share divided among them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def shared(case: Case, count: int) -> int:
    """Proportional bytes of so many processes together, each of which has answered and waits."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(case.command("hold", 0.0), **pipes) for _ in range(count)]
    try:
        for child in children:
            assert child.stdout.readline() == "ready\n", f"{case.engine} did not start"
        return sum(proportional(child.pid) for child in children)
    finally:
        ended = [child.communicate() and child.returncode for child in children]
        assert not any(ended), f"{case.engine} failed"


def together(jobs: Iterable[tuple[Case, str, float]]) -> list[dict[str, Any]]:
    """Results of jobs that are not timed, run in parallel."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda one: one[0].run(*one[1:]), jobs))


def measure(cases: Sequence[Case], expected: Any, repeats: int, calls: int, idle: float, seconds: float) -> Any:
    """Facts by engine, and threads of ours."""
    step(f"start each engine {repeats} times")
    found = started(cases, repeats, expected)
    step("two threads against one")
    times = cases[0].run("threads", seconds)
    step(f"{calls} calls of mixed sizes, and {idle:.0f} s of idling")
    jobs = [(case, *job) for case in cases for job in (("growth", calls), ("idle", idle))]
    reports = together(jobs)
    for (case, job, _), report in zip(jobs, reports, strict=True):
        found[case.engine][job] = report
    for case in cases:
        step(f"{SHARING} processes of {case.engine} against one")
        pss = {str(count): shared(case, count) for count in (1, SHARING)}
        found[case.engine] |= {"proportional": pss, "disk": case.model.stat().st_size}
    return {"engines": found, "threads": times}


def show(result: dict[str, Any]) -> None:
    """One line a fact, engines side by side."""
    engines = result["engines"]

    def line(name: str, value: Any) -> None:
        print(f"{name:38}" + "".join(f"{value(one):>24}" for one in engines.values()))

    def megabytes(count: int) -> str:
        return f"{count / 1e6:.1f} MB"

    print(" " * 38 + "".join(f"{name:>24}" for name in engines))
    line("model on disk", lambda one: megabytes(one["disk"]))
    line("start to first answer", lambda one: f"{1e3 * one['seconds']:.0f} ms")
    line("  of that Python's import, open, answer", lambda one: f"{1e3 * one['seconds_to_answer']:.0f} ms")
    line("resident after the first answer", lambda one: megabytes(one["resident"]))
    line("  at most", lambda one: megabytes(one["peak"]))
    for which, name in ((0, "resident when settled"), (-1, "resident after all calls")):
        line(name, lambda one, which=which: megabytes(list(one["growth"].values())[which]["resident"]))
    line("processor time while idle", lambda one: f"{1e3 * one['idle']['processor_seconds']:.1f} ms")
    for count in ("1", str(SHARING)):
        line(f"Pss of {count}", lambda one, count=count: megabytes(one["proportional"][count]))
    line("1 - cosine", lambda one: f"{one['error']:.0e}" + " wrong answers here" * one["wrong"])
    print(f"two threads: {result['threads']['times_faster']:.2f} times as fast as one, 16 x 128 tokens")


def main(
    file: Annotated[Path, typer.Argument(help="JSON file to write.")],
    repeats: Annotated[int, typer.Option(min=1, help="Processes to start of each engine.")] = 9,
    calls: Annotated[int, typer.Option(min=1, help="Calls of mixed sizes.")] = 10_000,
    idle: Annotated[float, typer.Option(min=0.0, help="Seconds of idling.")] = 60.0,
    seconds: Annotated[float, typer.Option(min=0.01, help="For two threads against one.")] = 15.0,
) -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as place:
        step("write the models")
        cases, expected, sparsity = prepare(Path(place))
        found = measure(cases, expected, repeats, calls, idle, seconds)
    options = {"repeats": repeats, "calls": calls, "idle": idle, "seconds": seconds}
    model = {"model": "all-MiniLM-L6-v2", "sparsity": sparsity}
    result = {"environment": environment(), "command": sys.argv, **model, "options": options, **found}
    show(result)
    write_json(file, result)
    print(f"wrote {file}")


if __name__ == "__main__":
    typer.run(main)
