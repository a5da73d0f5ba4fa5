"""Damaged or malicious int8 embeddings in folders: each is refused with a clear error, with and without torch."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_hostile_folders import edit_manifest, forge
from tiny_encoders import change_json, encoder

from sparsekit import convert, load, prune, save, verify
from sparsekit.engine import compile_model
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.io.safetensors_file import ArrayFile

NAME = "embeddings.word_embeddings"
CODES, SCALES = f"{NAME}.codes", f"{NAME}.scales"


@pytest.fixture
def folder(tmp_path) -> Path:
    model = encoder("bert", num_hidden_layers=1)
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8")
    save(model, tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, message: str) -> None:
    for read in (load, compile_model, verify, lambda path: ModelFolder(path).table(NAME)):
        with pytest.raises(ValueError, match=message):
            read(folder)


def test_the_folder_is_good_before_anything_is_done_to_it(folder):
    forge(folder, lambda arrays: None)
    load(folder)
    compile_model(folder)
    assert verify(folder).passed


@pytest.mark.parametrize("name", [CODES, SCALES])
def test_a_flipped_bit(folder, name):
    path = folder / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[ArrayFile(path).places[name].begin] ^= 0x10
    path.write_bytes(damaged)
    refused(folder, f"array '{name}' has another checksum")


def put(name: str, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name].reshape(-1)[7] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(CODES, -128), rf"embeddings '{NAME}' in .*: codes must be from -127 to 127, got -128"),
        (put(SCALES, 0.0), rf"embeddings '{NAME}' in .*: scales must be positive and finite"),
        (put(SCALES, -1e-3), "scales must be positive and finite, as 127 times them, got -0.001"),
        (put(SCALES, np.nan), "scales must be positive and finite, as 127 times them, got nan"),
        (put(SCALES, np.inf), "scales must be positive and finite, as 127 times them, got inf"),
        (put(SCALES, 3e38), "scales must be positive and finite, as 127 times them, got 3"),
        (lambda a: a.pop(CODES), rf"embeddings '{NAME}' lack the arrays \['codes'\]"),
        (lambda a: a.pop(SCALES), rf"embeddings '{NAME}' lack the arrays \['scales'\]"),
        (lambda a: a.update({CODES: a[CODES][:-1].copy()}), rf"'{SCALES}' must be F32 \[96\], got F32 \[97\]"),
        (lambda a: a.update({SCALES: a[SCALES][:-1].copy()}), rf"'{SCALES}' must be F32 \[97\], got F32 \[96\]"),
        (lambda a: a.update({SCALES: a[SCALES][:, None].copy()}), rf"'{SCALES}' must be F32 \[97\], got F32 \[97, 1\]"),
        (lambda a: a.update({CODES: a[CODES].reshape(-1)}), rf"'{CODES}' must have two dimensions"),
        (lambda a: a.update({CODES: a[CODES].view(np.uint8)}), rf"'{CODES}' must be I8 \[97, 36\], got U8 \[97, 36\]"),
        (lambda a: a.update({CODES: a[CODES].astype(np.float32)}), rf"'{CODES}' must be I8 \[97, 36\], got F32"),
        (lambda a: a.update({SCALES: a[SCALES].view(np.uint32)}), rf"'{SCALES}' must be F32 \[97\], got U32 \[97\]"),
        (lambda a: a.update({f"{NAME}.weight": np.zeros((97, 36), np.float32)}), "has a weight and embeddings in int8"),
    ],
)
def test_arrays_that_do_not_fit(folder, change, message):
    forge(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("embeddings"), "expected the keys"),
        (lambda m: m.update(embeddings=[]), "embeddings must be an object"),
        (lambda m: m["embeddings"].update({NAME: []}), rf"embeddings\['{NAME}'\] must be an object"),
        (lambda m: m["embeddings"].update({NAME: {}}), r"must have the keys \['output_dtype'\]"),
        (lambda m: m["embeddings"][NAME].update(module="os"), r"must have the keys \['output_dtype'\]"),
        (lambda m: m["embeddings"][NAME].update(output_dtype="int8"), "output_dtype must be one of float32, bfloat16"),
        (lambda m: m["embeddings"][NAME].update(output_dtype=["float32"]), "output_dtype must be one of"),
        (lambda m: m["embeddings"].update({"": {"output_dtype": "float32"}}), "embeddings '' lack the arrays"),
        (lambda m: m["embeddings"].update({"x": {"output_dtype": "float32"}}), "embeddings 'x' lack the arrays"),
        (
            lambda m: m["embeddings"].update({"pooler.dense": {"output_dtype": "float32"}}),
            r"embeddings 'pooler.dense' lack the arrays \['codes', 'scales'\]",
        ),
        (lambda m: m["shared"].update({CODES: SCALES}), f"'{CODES}' cannot share '{SCALES}'"),
    ],
)
def test_a_manifest_that_does_not_fit(folder, change, message):
    edit_manifest(folder, change)
    refused(folder, message)


def test_a_manifest_that_does_not_say_what_the_arrays_are(folder):
    edit_manifest(folder, lambda m: m["embeddings"].clear())
    for read in (load, verify, compile_model):
        if read is verify:  # it holds no inputs, so that the model is not made
            continue
        with pytest.raises(ValueError, match=rf"word_embeddings.weight'\]|{NAME}.weight"):
            read(folder)


def test_embeddings_for_something_that_is_none(folder):
    def rename(arrays):
        for name in (CODES, SCALES):
            arrays[name.replace(NAME, "pooler.activation")] = arrays.pop(name)

    edit_manifest(folder, lambda m: m["embeddings"].update({"pooler.activation": m["embeddings"].pop(NAME)}))
    forge(folder, rename)
    with pytest.raises(ValueError, match="embeddings in int8 for 'pooler.activation', where the model has a Tanh"):
        load(folder)


@pytest.mark.parametrize("size", [96, 98, 10**12])
def test_a_configuration_of_another_vocabulary(folder, size):
    change_json(folder / "config.json", vocab_size=size)
    with pytest.raises(ValueError, match=rf"must be torch.int8 \[{size}, 36\]|describes no model"):
        load(folder)


def test_a_changed_entry_changes_the_checksum_of_the_manifest(folder):
    path = folder / "sparsekit.json"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(path.read_text().replace('"output_dtype": "float32"', '"output_dtype": "float16"'))
    assert hashlib.sha256(path.read_bytes()).hexdigest() != before
    refused(folder, "is damaged, its checksum is another")


def test_state_dicts_with_codes_of_another_shape_are_refused_by_torch():
    model = encoder("bert", num_hidden_layers=1)
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8")
    state = {**model.state_dict(), CODES: torch.zeros(96, 36, dtype=torch.int8)}
    with pytest.raises(RuntimeError, match="size mismatch for embeddings.word_embeddings.codes"):
        model.load_state_dict(state)
