"""Full disks, killed and concurrent writers: a folder is always complete."""

import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_checkpoint_transformers import SIZES, contents, logits
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from sparsekit import convert, load, prune, save
from sparsekit.checkpoint import saving
from sparsekit.checkpoint.shards import ShardWriter
from sparsekit.io import atomic_folder as folders

FORK = multiprocessing.get_context("fork")


def sparse_classifier(labels: int) -> nn.Module:
    torch.manual_seed(labels)
    config = BertConfig(vocab_size=60, max_position_embeddings=40, num_labels=labels, **SIZES)
    model = BertForSequenceClassification(config).eval()
    prune(model, 0.8, targets=["re:.*encoder"])
    convert(model, targets=["re:.*encoder"], min_sparsity=0.5)
    return model


ONE, OTHER = sparse_classifier(2), sparse_classifier(3)


def is_either(model: nn.Module) -> bool:
    expected = ONE if model.config.num_labels == 2 else OTHER
    return torch.equal(logits(model), logits(expected))


def run_on_one_thread(function: Callable[..., object], *arguments: object) -> None:
    torch.set_num_threads(1)  # those of the process that was forked are not there
    function(*arguments)


def start(function: Callable[..., object], *arguments: object) -> multiprocessing.process.BaseProcess:
    child = FORK.Process(target=run_on_one_thread, args=(function, *arguments))
    child.start()
    return child


def exit_code(child: multiprocessing.process.BaseProcess) -> int | None:
    child.join(60)
    return child.exitcode


def save_with_room_for(most_bytes: int, folder: Path, arguments: dict[str, bool]) -> None:
    """Exit with 0 if the file system's error comes out as OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        save(OTHER, folder, **arguments)
    except OSError:
        os._exit(0)
    os._exit(1)


@pytest.mark.parametrize("arguments", [{}, {"dense": True}])
@pytest.mark.parametrize("most_bytes", [0, 10, 1_000, 20_000])
def test_no_room_leaves_the_old_folder_or_none(tmp_path, most_bytes, arguments):
    assert exit_code(start(save_with_room_for, most_bytes, tmp_path / "model", arguments)) == 0
    assert list(tmp_path.iterdir()) == []
    save(ONE, tmp_path / "model")
    before = contents(tmp_path / "model")
    assert exit_code(start(save_with_room_for, most_bytes, tmp_path / "model", arguments)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert contents(tmp_path / "model") == before


def save_and_be_killed(folder: Path, place: object, name: str) -> None:
    setattr(place, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    save(OTHER, folder)


@pytest.mark.parametrize(
    ("place", "name", "labels"),
    [
        (ShardWriter, "close", 2),
        (saving, "write_config", 2),
        (saving, "write_verification", 2),
        (folders, "_flush", 2),
        (folders, "_keep", 2),
        (folders, "_exchanged", 2),
        (shutil, "rmtree", 3),  # the new folder is in place
    ],
)
def test_a_kill_leaves_one_of_both_and_the_next_save_cleans_up(tmp_path, place, name, labels):
    folder = tmp_path / "model"
    save(ONE, folder)
    assert exit_code(start(save_and_be_killed, folder, place, name)) == -signal.SIGKILL
    assert load(folder).config.num_labels == labels
    assert is_either(load(folder))
    assert len(list(tmp_path.iterdir())) == 2
    save(OTHER, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert is_either(load(folder))


def test_a_kill_before_there_is_a_folder(tmp_path):
    assert exit_code(start(save_and_be_killed, tmp_path / "model", folders, "_flush")) == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    save(ONE, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_others_named_alike_stays(tmp_path):
    kept = [".model-abcdefgh", ".model-backup", ".model-abcdefgh-old", ".models-abcdefgh"]
    for name in kept:
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "mine.txt").write_text("")
    save(ONE, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "model"])


def save_often(folder: Path, model: nn.Module, times: int) -> None:
    for _ in range(times):
        save(model, folder)


def test_two_processes_save_while_a_third_loads(tmp_path):
    folder = tmp_path / "model"
    children = [start(save_often, folder, model, 15) for model in (ONE, OTHER)]
    while not folder.exists() and any(child.is_alive() for child in children):
        time.sleep(0.001)
    found = set()
    while any(child.is_alive() for child in children):
        model = load(folder)
        assert is_either(model)
        found.add(model.config.num_labels)
    assert [exit_code(child) for child in children] == [0, 0]
    assert found <= {2, 3}
    assert is_either(load(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def load_often(folder: Path) -> None:
    for _ in range(5):
        if not is_either(load(folder)):
            os._exit(1)


def test_two_processes_load_at_once(tmp_path):
    save(ONE, tmp_path / "model")
    children = [start(load_often, tmp_path / "model") for _ in range(2)]
    assert [exit_code(child) for child in children] == [0, 0]
