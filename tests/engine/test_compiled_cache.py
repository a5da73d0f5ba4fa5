"""`Encoder(cache=True)` compiles a folder once, and again when anything changes that the result depends on."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import change_json, encoder, sequences

from sparsekit import runtime
from sparsekit.engine import Encoder, compile_model

IDS = sequences((7, 3))


@pytest.fixture
def folder(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of these tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sparsekit" / "compiled"


@pytest.fixture
def forbid_compiling(monkeypatch):
    def forbid():
        monkeypatch.setattr("sparsekit.engine.compiling.compile_model", None)

    return forbid


def states(folder: Path, **arguments) -> np.ndarray:
    return np.concatenate(Encoder(folder, cache=True, **arguments).run(IDS))


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


@pytest.mark.parametrize("mmap", [True, False])
def test_a_folder_is_compiled_once(folder, cache, forbid_compiling, mmap):
    expected = np.concatenate(Encoder(folder, pooling="mean").run(IDS))
    assert not cache.exists()
    assert np.array_equal(states(folder, pooling="mean", mmap=mmap), expected)
    (file,) = cache.iterdir()
    assert file.read_bytes() == compile_model(folder, pooling="mean").tobytes()
    forbid_compiling()
    assert np.array_equal(states(folder, pooling="mean", mmap=mmap), expected)
    assert names(cache) == {file.name}


def test_arguments_instruction_sets_and_versions_have_files_of_their_own(folder, cache, monkeypatch):
    everything = [{}, {"dtype": "int8"}, {"embeddings": "int8"}, {"pooling": "mean"}, {"pooling": "cls"}]
    for arguments in everything:
        states(folder, **arguments)
    assert len(names(cache)) == len(everything)
    states(folder, dtype="float32")
    assert len(names(cache)) == len(everything)
    monkeypatch.setattr(runtime, "version", lambda: "another")
    states(folder)
    assert len(names(cache)) == len(everything) + 1
    isa = runtime.current_isa()
    runtime.use_isa("scalar")
    try:
        states(folder)
    finally:
        runtime.use_isa(isa)
    assert len(names(cache)) == len(everything) + 2


def test_changed_files_are_compiled_again(folder, cache):
    states(folder)
    change_json(folder / "config.json", hidden_act="relu")
    assert np.array_equal(states(folder), np.concatenate(Encoder(folder).run(IDS)))
    assert len(names(cache)) == 2
    weights = folder / "model.safetensors"
    status, content = weights.stat(), bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))  # as copies that keep times do
    assert np.array_equal(states(folder), np.concatenate(Encoder(folder).run(IDS)))
    assert len(names(cache)) == 3
    folder.rename(folder.with_name("moved"))
    states(folder.with_name("moved"))
    assert len(names(cache)) == 4


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: data[:-65] + b"x" * 65])
def test_a_damaged_file_is_compiled_again(folder, cache, damage):
    expected = states(folder)
    (file,) = cache.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert np.array_equal(states(folder), expected)
    assert file.read_bytes() == good


def test_processes_that_start_together(folder, cache):
    expected = np.concatenate(Encoder(folder).run(IDS))
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        for found in pool.map(states, [folder] * 3):
            assert np.array_equal(found, expected)
    assert len(names(cache)) == 1


def test_without_a_folder_to_write_to(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file/sparsekit/compiled cannot be made .*; set XDG_CACHE_HOME"):
        Encoder(folder, cache=True)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="cache/sparsekit/compiled cannot be written"):
        Encoder(folder, cache=True)


def test_the_cache_is_in_the_home_folder_where_nothing_says_another(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    states(folder)
    assert len(names(tmp_path / "home" / ".cache" / "sparsekit" / "compiled")) == 1


OPEN = """
import sys
from sparsekit.engine import Encoder
Encoder(sys.argv[1], cache=True).run([[5]])
assert "sparsekit.engine.compiled_cache" in sys.modules
assert "sparsekit.engine.compiling" not in sys.modules
"""


def test_a_cached_folder_is_opened_without_what_compiles(folder):
    Encoder(folder, cache=True)
    subprocess.run([sys.executable, "-c", OPEN, str(folder)], check=True)
