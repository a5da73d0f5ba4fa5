"""Models in the hub's local cache, whose files are links: they open by name, and links to elsewhere stay refused."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from test_checkpoint_transformers import logits, sparse_bert

import sparsekit
from sparsekit import load, save, verify
from sparsekit.checkpoint import open_layers
from sparsekit.checkpoint.folder_conversion import convert_folder
from sparsekit.conversion import conversion_report
from sparsekit.io.hub_cache import local_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into(cache: Path, name: str, folder: Path) -> Path:
    """Move a model's files into the cache, as a download leaves them. Returns the snapshot."""
    model = cache / f"models--{name.replace('/', '--')}"
    snapshot = model / "snapshots" / REVISION
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        blob = model / "blobs" / f"{hash(file.read_bytes()) % 2**64:016x}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(REVISION)
    return snapshot


def test_a_sparse_model_opens_by_its_name(cache, tmp_path):
    model = sparse_bert()
    save(model, tmp_path / "model", verify_inputs={"input_ids": torch.arange(9)[None]})
    snapshot = put_into(cache, "org/sparse", tmp_path / "model")
    assert (snapshot / "model.safetensors").is_symlink()
    for source in ("org/sparse", snapshot):
        assert torch.equal(logits(load(source)), logits(model))
    assert verify("org/sparse").outputs["logits"].absolute == 0.0
    assert "bert.encoder.layer.0.output.dense" in open_layers("org/sparse")


def test_a_dense_model_is_converted_by_its_name(cache, tmp_path):
    model = sparse_bert()
    save(model, tmp_path / "model", dense=True)
    put_into(cache, "org/dense", tmp_path / "model")
    converted = convert_folder("org/dense", tmp_path / "out", min_sparsity=0.5)
    assert conversion_report(converted).converted == 12
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert torch.equal(logits(load(tmp_path / "out")), logits(model))
    assert verify(tmp_path / "out").outputs


BY_NAME = """
import sys
import sparsekit, transformers
model = transformers.AutoModelForSequenceClassification.from_pretrained("org/sparse")
assert isinstance(model.bert.encoder.layer[0].output.dense, sparsekit.SparseLinear)
"""


def test_transformers_opens_a_sparse_model_by_its_name(cache, tmp_path):
    save(sparse_bert(), tmp_path / "model")
    put_into(cache, "org/sparse", tmp_path / "model")
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", BY_NAME], check=True, env=environment)


def relink(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


def test_links_to_elsewhere_are_refused(cache, tmp_path):
    save(sparse_bert(), tmp_path / "model")
    (tmp_path / "secret").write_bytes((tmp_path / "model" / "model.safetensors").read_bytes())
    snapshot = put_into(cache, "org/sparse", tmp_path / "model")
    weights = snapshot / "model.safetensors"
    other = cache / "models--org--other" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    other.write_bytes(weights.read_bytes())
    deeper = snapshot.parent.parent / "blobs" / "deeper" / "x"
    deeper.parent.mkdir()
    deeper.write_bytes(weights.read_bytes())
    for target in (tmp_path / "secret", other, deeper):
        relink(weights, target)
        with pytest.raises(ValueError, match=r"model.safetensors is a link out of the folder"):
            load("org/sparse")


def test_blobs_that_are_a_link_themselves_are_refused(cache, tmp_path):
    save(sparse_bert(), tmp_path / "model")
    snapshot = put_into(cache, "org/sparse", tmp_path / "model")
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link out of the folder"):
        load("org/sparse")


def test_a_folder_that_only_looks_like_the_cache_gets_no_exception(tmp_path):
    folder = tmp_path / "mine" / "snapshots" / REVISION
    save(sparse_bert(), folder)
    (tmp_path / "mine" / "blobs").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "mine" / "blobs" / "x")
    (folder / "model.safetensors").symlink_to(tmp_path / "mine" / "blobs" / "x")
    with pytest.raises(ValueError, match="is a link out of the folder"):
        load(folder)


def test_what_is_in_no_cache_is_named(cache, monkeypatch):
    for source in ("org/nothing", "/no/such/folder", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"there is no folder {source}, nor a model of this name"):
            local_folder(source)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="there is no folder org/nothing, nor a model"):
        sparsekit.load("org/nothing")
