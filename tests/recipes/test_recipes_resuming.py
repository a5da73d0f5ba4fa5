"""Runs stopped with Ctrl-C and resumed: what is kept, the message, and a bit-identical result."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from safetensors.torch import load_file
from tiny_runs import recipe_of, tiny

from sparsekit.cli import run
from sparsekit.recipes import compress
from sparsekit.recipes.resuming import disk_space
from sparsekit.recipes.stages import STAGES

_RECIPE = """\
task: classification
data: {max_tokens: 12, batch_size: 8, test_part: 0.25}
stages:
  - finetune: {epochs: 2, learning_rate: 1.0e-3}
  - prune: {sparsity: 0.5, samples: 8}
  - evaluate
  - distill: {epochs: 40, learning_rate: 1.0e-3, checkpoint_minutes: 0}
  - convert: {min_sparsity: 0.3}
"""


@pytest.fixture
def classifier(tmp_path):
    return tiny(tmp_path / "classifier", "classification", num_hidden_layers=2)


def start(folder, out):
    command = [sys.executable, "-m", "sparsekit", "compress", "classifier", "--recipe", "recipe.yaml"]
    return subprocess.Popen(
        [*command, "--data", "reviews.jsonl", "--out", out],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, running):
    for _ in range(2400):
        if path.exists() or running.poll() is not None:
            break
        time.sleep(0.05)
    assert path.exists(), running.communicate()


def same_weights(one, other):
    one, other = (load_file(out / "model.safetensors") for out in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(tmp_path, classifier, reviews):
    (tmp_path / "recipe.yaml").write_text(_RECIPE)
    running = start(tmp_path, "out")
    work = tmp_path / "out" / "work"
    wait_for(work / "4-distill.safetensors", running)
    running.send_signal(signal.SIGINT)
    printed, told = running.communicate(timeout=120)
    assert running.returncode == 130, told
    assert "Traceback" not in told
    assert "stopped; kept in out/work: 1-finetune, 2-prune, 3-evaluate, 4-distill up to step " in " ".join(told.split())
    assert "The same command resumes from there." in " ".join(told.split())
    assert "3-evaluate" in told.split("stopped;")[0], "a score is said when it is there"
    assert "accuracy" in told
    assert max(map(len, told.splitlines())) <= 80
    stages = {path: path.stat().st_mtime_ns for path in (work / "1-finetune", work / "2-prune")}
    recipe = (tmp_path / "recipe.yaml").read_text()
    again = start(tmp_path, "out")
    printed, told = again.communicate(timeout=240)
    assert again.returncode == 0, told
    assert "finished before: 1-finetune, 2-prune, 3-evaluate" in told
    assert {path: path.stat().st_mtime_ns for path in stages} == stages
    for words in ("dense", "after float32", "accuracy", "texts/s", "Wilson", "wrote"):
        assert words in printed
    assert max(map(len, printed.splitlines()[:3])) <= 80
    steps = [json.loads(line)["step"] for line in (work / "4-distill.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1)), "the log of one run"
    assert (tmp_path / "recipe.yaml").read_text() == recipe
    assert not list(work.glob("*-teacher")), "what only a stage needed is dropped behind it"
    assert not list(work.glob("*.safetensors"))


class Stop:
    """Stands for Ctrl-C as a stage begins."""

    def __init__(self, monkeypatch, name):
        self.patch, self.name, self.calls = monkeypatch, name, []

    def __enter__(self):
        self.before = dict(STAGES)
        for name, kind in self.before.items():
            self.patch.setitem(STAGES, name, replace(kind, run=self._watched(name, kind.run)))
        return self.calls

    def _watched(self, name, function):
        def run_stage(job, settings):
            if name == self.name:
                raise KeyboardInterrupt
            self.calls.append(name)
            return function(job, settings)

        return run_stage

    def __exit__(self, *_):
        for name, kind in self.before.items():
            self.patch.setitem(STAGES, name, kind)


@pytest.mark.slow
def test_a_run_stopped_before_every_stage_is_the_run_that_was_not(tmp_path, classifier, reviews, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = recipe_of(
        "classification",
        {"finetune": {"epochs": 2, "learning_rate": 1e-3, "freeze": []}},
        {"prune_neurons": {"fraction": 0.25, "samples": 8}},
        {"prune": {"sparsity": 0.5, "samples": 8}},
        {"distill": {"epochs": 1, "learning_rate": 1e-3}},
        "evaluate",
        {"convert": {"min_sparsity": 0.3, "dtype": "int8"}},
    )
    names = [stage.name for stage in recipe.stages]
    try:
        whole = compress(classifier, recipe, reviews, tmp_path / "whole")
        for number, name in enumerate(names[1:], 1):
            with Stop(monkeypatch, name) as called, pytest.raises(KeyboardInterrupt) as stopped:
                compress(classifier, recipe, reviews, tmp_path / "parts")
            assert called == [names[number - 1]], "only what was not over"
            assert f"{number}-{names[number - 1]}" in stopped.value.__notes__[0]
        with Stop(monkeypatch, "none") as called:
            parts = compress(classifier, recipe, reviews, tmp_path / "parts")
        assert called == names[-1:]
    finally:
        torch.set_num_threads(threads)
    assert same_weights(tmp_path / "whole", tmp_path / "parts")
    assert parts["scores"] == whole["scores"]
    measured = dict.fromkeys(("seconds", "plot", "whole_speedup", "noisy"), 0)
    for one, other in zip(whole["stages"], parts["stages"], strict=True):
        assert one | measured == other | measured


def test_nothing_is_kept_of_a_run_that_was_stopped_at_once(tmp_path, classifier, reviews, monkeypatch, capsys):
    (tmp_path / "recipe.yaml").write_text(_RECIPE)
    monkeypatch.chdir(tmp_path)
    line = "sparsekit compress classifier --recipe recipe.yaml --data reviews.jsonl --out out"
    monkeypatch.setattr(sys, "argv", line.split())
    with Stop(monkeypatch, "finetune"), pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 130
    assert (
        capsys.readouterr().err.strip().startswith("stopped: no stage is finished, nothing is kept; the same command")
    )


def test_a_disk_without_room_is_known_before_anything_is_computed(tmp_path, classifier, reviews, monkeypatch):
    recipe = recipe_of("classification", {"finetune": {"epochs": 1}}, {"prune": {"sparsity": 0.5}}, "distill")
    parts = {}

    def nearly_full(path):
        parts["path"] = path
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    needs = r"out needs about .* MB \(the model .* MB, stages .* MB, a checkpoint .* MB, the teacher.*disk has 0.0 MB"
    with pytest.raises(OSError, match=needs):
        compress(classifier, recipe, reviews, tmp_path / "out")
    assert parts["path"] == Path(tmp_path), "the nearest folder that is there"
    assert not (tmp_path / "out").exists()


def test_the_room_that_is_asked_for_is_what_a_run_takes(tmp_path, classifier, reviews, monkeypatch):
    recipe = recipe_of(
        "classification", {"finetune": {"epochs": 1, "checkpoint_minutes": 0}}, {"prune": {"sparsity": 0.5}}
    )
    asked = {}
    needed = disk_space.needed
    monkeypatch.setattr(disk_space, "needed", lambda job, finished: asked.update(needed(job, finished)) or asked)
    compress(classifier, recipe, reviews, tmp_path / "out")
    size = sum(file.stat().st_size for file in classifier.glob("*.safetensors"))
    assert asked["the model"] == pytest.approx(size, rel=0.01)
    assert asked["a checkpoint"] >= 3 * asked["the model"]
    files = [*(tmp_path / "out").rglob("*.safetensors"), *(tmp_path / "out").rglob("*.bin")]
    taken = sum(file.stat().st_size for file in files)
    assert taken <= asked["the model"] + asked["stages"]
    assert taken > 0.4 * (asked["the model"] + asked["stages"])
