"""The demo: speed of MiniLM with zeros imposed, then accuracy of MiniLM compressed by a recipe."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from sparsekit.bench.film_reviews import load_splits
from sparsekit.bench.minilm import load_minilm, minilm_folder
from sparsekit.bench.models.benchmark import ModelGrid, run
from sparsekit.demo.report import show_report, show_speed
from sparsekit.io.atomic_file import write_json_lines
from sparsekit.progress import Progress
from sparsekit.recipes import Recipe, compress, make_recipe
from sparsekit.runtime.environment import environment
from sparsekit.runtime.memory import keep_freed_memory

#: Numbers of training and test sentences, and seconds to time an input.
_FULL, _FAST = (7030, 1000, 4.0), (960, 300, 2.0)


def _recipe(sparsity: float, seed: int, fast: bool) -> Recipe:
    content = yaml.safe_load(Path(__file__).with_name("recipe.yaml").read_text())
    for settings in (settings for stage in content["stages"] if isinstance(stage, dict) for settings in stage.values()):
        settings |= {"sparsity": sparsity} if "sparsity" in settings else {}
        settings |= {"epochs": 2 * settings["epochs"]} if "epochs" in settings and fast else {}
    return make_recipe({**content, "seed": seed})


def _measure_speed(sparsity: float, seconds: float) -> list[dict[str, Any]]:
    """Rows of the model benchmark, on all threads."""
    keep_freed_memory()
    engines, threads = ("torch", "sparsekit", "sparsekit-int8"), (torch.get_num_threads(),)
    grid = ModelGrid(sparsities=(sparsity,), threads=threads, engines=engines, seconds=seconds)
    groups = Progress(run(load_minilm(), grid), title="measure speed", unit="inputs", total=grid.groups)
    return [asdict(row) for group in groups for row in group]


def run_demo(out: Path, console: Console, *, sparsity: float, seed: int, fast: bool) -> dict[str, Any]:
    """Run the demo; write `result.json`, which is returned, `table.md`, `plot.png` and the sparse model to `out`."""
    start = time.perf_counter()
    sentences, tests, seconds = _FAST if fast else _FULL
    rows = _measure_speed(sparsity, seconds)
    speed_seconds = time.perf_counter() - start
    show_speed(rows, sparsity, sentences, console)
    splits = load_splits(seed)
    parts = {"train": splits.train[:sentences], "test": splits.test[:tests]}
    files = {name: write_json_lines(out / f"{name}.jsonl", rows) for name, rows in parts.items()}
    model = out / f"model-{round(100 * sparsity)}-seed-{seed}{'-fast' * fast}"
    report = compress(minilm_folder(), _recipe(sparsity, seed, fast), files["train"], model, test=files["test"])
    shutil.rmtree(model / "work")  # so that the next run starts over
    spent = {"speed": speed_seconds, "all": time.perf_counter() - start}
    given = {"sparsity": sparsity, "seed": seed, "train_sentences": sentences, "test_sentences": tests}
    result = {"environment": environment(), **given, "speed": rows, "report": report, "seconds": spent}
    show_report(result, model, out, console)
    return result
