"""Model folders: models round-trip bit for bit, and folders are replaced atomically."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matrices import blocked_weight, random_weight
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from sparsekit import SparseLinear, conversion_report, convert, load, prune, save
from sparsekit.checkpoint import open_layers, saving
from sparsekit.checkpoint.shards import ShardWriter
from sparsekit.formats.dtypes import WEIGHT_DTYPES
from sparsekit.fusion.fused_linear import FusedActivation
from sparsekit.io import atomic_folder as folders


def fresh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(300, 64), nn.ReLU(), nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 4))


def pruned(rng, block: str = "1x1") -> nn.Sequential:
    torch.manual_seed(0)
    model = fresh().eval()
    make = blocked_weight if block == "4x1" else random_weight
    for layer in (model[0], model[2]):
        layer.weight.data = torch.from_numpy(make(rng, tuple(layer.weight.shape), 0.8))
    return model


def converted(rng, dtype: str = "float32", block: str = "1x1", **arguments) -> nn.Sequential:
    model = pruned(rng, block)
    report = conversion_report(convert(model, ignore=["4"], min_sparsity=0.5, dtype=dtype, **arguments))
    assert report.converted == 2
    return model


def same_outputs(one: nn.Module, other: nn.Module, *, in_features: int = 300) -> None:
    for batch in (1, 17):
        x = torch.randn(batch, in_features, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            assert torch.equal(one(x), other(x))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _kept(dtype: str, block: str) -> str:
    """int4 has no layout of blocks."""
    return "1x1" if dtype == "int4" else block


@pytest.mark.parametrize("block", ["1x1", "4x1"])
@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_outputs_are_the_same_bit_for_bit(rng, tmp_path, dtype, block):
    model = converted(rng, dtype, block)
    assert (model[0].dtype, model[0].block, model[0].activation) == (dtype, _kept(dtype, block), "relu")
    save(model, tmp_path / "model")
    loaded = fresh().eval()
    assert load(tmp_path / "model", model=loaded) is loaded
    for one, other in zip(model, loaded, strict=True):
        assert type(one) is type(other)
        if isinstance(one, SparseLinear):
            assert torch.equal(one.packed, other.packed)
            assert one.activation == other.activation
    same_outputs(model, loaded)


def test_a_layer_made_without_its_blocks_stays_so(rng, tmp_path):
    model = pruned(rng, "4x1")
    model[0] = SparseLinear.from_linear(model[0], block="1x1")
    model[2] = SparseLinear.from_linear(model[2], dtype="int8", scale_method="mse")
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model", model=nn.Sequential(*fresh()).eval())
    assert loaded[0].block == "1x1"
    assert torch.equal(loaded[0].packed, model[0].packed)
    assert torch.equal(loaded[2].packed, model[2].packed)


def test_activation_functions_that_were_not_fused_stay_apart(rng, tmp_path):
    model = converted(rng, fuse=False)
    save(model, tmp_path / "model")
    for other in (fresh(), converted(rng)):
        loaded = load(tmp_path / "model", model=other)
        assert not any(isinstance(module, FusedActivation) for module in loaded)
        same_outputs(model, loaded)
    save(converted(rng), tmp_path / "fused")
    bare = nn.Sequential(nn.Linear(300, 64), nn.Tanh(), nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 4))
    with pytest.raises(ValueError, match=r"layer '0' was stored with the activation function relu.*gives it None"):
        load(tmp_path / "fused", model=bare)


def test_arrays_have_the_types_of_the_format(rng, tmp_path):
    save(converted(rng, "int8"), tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "np") as file:
        found = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    types = {"mask": "U8", "values": "I8", "scales": "F32", "bias": "F32"}
    expected = {f"{layer}.{part}": dtype for layer in (0, 2) for part, dtype in types.items()}
    assert found == {**expected, "4.weight": "F32", "4.bias": "F32"}


def test_a_wide_layer_has_indices_of_four_bytes(tmp_path):
    linear = nn.Linear(70_000, 3)
    linear.weight.data[:, 1:-1] = 0.0
    model = nn.Sequential(SparseLinear.from_linear(linear))
    save(model, tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "sparsekit.json").read_text())
    assert manifest["arrays"]["0.col_indices"]["dtype"] == "U32"
    same_outputs(model, load(tmp_path / "model", model=nn.Sequential(nn.Linear(70_000, 3))), in_features=70_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_dense_layers_with_zeros_are_small_on_disk_and_dense_again(rng, tmp_path, dtype):
    model = pruned(rng).to(dtype)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model", model=fresh())
    assert all(type(one) is type(other) for one, other in zip(model, loaded, strict=True))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
        assert loaded.state_dict()[name].dtype == dtype
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    dense = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert (size < 0.55 * dense) == (dtype != torch.float64)
    model[0].weight.data[5, 5] = -0.0
    save(model, tmp_path / "model")
    assert bool(load(tmp_path / "model", model=fresh())[0].weight[5, 5].signbit())


def test_tensors_and_modules_with_several_names(rng, tmp_path):
    def make() -> nn.Sequential:
        twice = nn.Linear(8, 8)
        model = nn.Sequential(twice, twice, nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
        model[4].weight = model[2].weight
        return model.eval()

    model = make()
    prune(model, 0.5, targets=["0"])
    convert(model, targets=["0"], min_sparsity=0.0)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model", model=make())
    assert isinstance(loaded[0], SparseLinear)
    assert loaded[0] is loaded[1]
    assert loaded[4].weight is loaded[2].weight
    same_outputs(model, loaded, in_features=8)


def test_a_dense_folder_is_plain_safetensors(rng, tmp_path):
    model = converted(rng)
    save(model, tmp_path / "model", dense=True)
    dense = fresh()
    dense.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    x = torch.randn(3, 300)
    torch.testing.assert_close(dense(x), model(x))


def test_the_same_model_gives_the_same_bytes(rng, tmp_path):
    model = converted(rng, "int8")
    save(model, tmp_path / "one")
    save(copy.deepcopy(model), tmp_path / "other")
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "one").iterdir())
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_several_weight_files(rng, tmp_path):
    model = converted(rng)
    folder = tmp_path / "model"
    save(model, folder, max_shard_size=2000)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(names) >= 3
    assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(names)
    same_outputs(model, load(folder, model=fresh().eval()))
    save(model, folder)
    assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]


def test_an_error_in_mid_write_leaves_the_old_folder(rng, tmp_path, monkeypatch):
    model = converted(rng)
    save(model, tmp_path / "model")
    before = contents(tmp_path / "model")
    changed = pruned(rng)
    for place, name, error in (
        (ShardWriter, "close", OSError("disk full")),
        (saving, "card", KeyboardInterrupt()),
        (folders, "_exchange", OSError("busy")),
    ):
        with monkeypatch.context() as patch:

            def fail(*_, error=error, **__):
                raise error

            patch.setattr(place, name, fail)
            with pytest.raises(type(error)):
                save(changed, tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert contents(tmp_path / "model") == before
    same_outputs(model, load(tmp_path / "model", model=fresh().eval()))


def _save_and_die(model: nn.Module, folder: Path) -> None:
    folders._exchange = lambda *_: os._exit(9)
    save(model, folder)


def test_a_kill_just_before_the_end_leaves_the_old_folder(rng, tmp_path):
    save(converted(rng), tmp_path / "model")
    before = contents(tmp_path / "model")
    child = torch.multiprocessing.get_context("fork").Process(
        target=_save_and_die, args=(pruned(rng), tmp_path / "model")
    )
    child.start()
    child.join(60)
    assert child.exitcode == 9
    assert contents(tmp_path / "model") == before


@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_is_replaced_and_other_files_are_kept(rng, tmp_path, monkeypatch, at_once):
    if not at_once:  # as on a file system that cannot
        monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    folder = tmp_path / "model"
    save(converted(rng), folder, recipe="sparsity: 0.8\n", max_shard_size=5000)
    (folder / "notes.txt").write_text("mine")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("main")
    model = converted(rng, "int8")
    save(model, folder)
    expected = {"README.md", "model.safetensors", "sparsekit.json", "notes.txt", ".git"}
    assert {path.name for path in folder.iterdir()} == expected
    assert (folder / ".git" / "HEAD").read_text() == "main"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    same_outputs(model, load(folder, model=fresh().eval()))


class Tokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def test_tokenizer_and_recipe(rng, tmp_path):
    (tmp_path / "mine.yaml").write_text("sparsity: 0.8\n")
    save(converted(rng), tmp_path / "model", tokenizer=Tokenizer(), recipe=tmp_path / "mine.yaml")
    found = contents(tmp_path / "model")
    assert found["tokenizer.json"] == b"{}"
    assert found["recipe.yaml"] == b"sparsity: 0.8\n"
    with pytest.raises(ValueError, match=r"write Path\('mine.yaml'\)"):
        save(converted(rng), tmp_path / "model", recipe="mine.yaml")


def test_sparse_layers_run_without_torch(rng, tmp_path):
    model = converted(rng, "bfloat16")
    save(model, tmp_path / "model")
    x = rng.standard_normal((5, 300), dtype=np.float32)
    layers = open_layers(tmp_path / "model")
    with torch.inference_mode():
        expected = model[:2](torch.from_numpy(x)).numpy()
    assert list(layers) == ["0", "2"]
    assert np.array_equal(layers["0"](x), expected)
    code = (
        "import sys; from sparsekit.checkpoint import open_layers; open_layers(sys.argv[1]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], check=True)


def test_what_cannot_be_saved(rng, tmp_path, monkeypatch):
    masked = pruned(rng)
    prune(masked, 0.9)
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    for model, folder, error, message in (
        (masked, "model", ValueError, "0 still has its mask; call sparsekit.finalize"),
        (nn.Sequential(nn.Linear(2, 2, device="meta")), "model", ValueError, "0.weight is on meta"),
        (SparseLinear(2, 2), "model", ValueError, r"save torch.nn.Sequential\(it\)"),
        ("model", "model", TypeError, "expected a torch.nn.Module, got str"),
        (nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), "model", TypeError, "Parameter of torch.complex64"),
        (fresh(), "file", ValueError, "must be a folder or not be there yet"),
        (fresh(), ".", ValueError, "is where this process works"),
    ):
        with pytest.raises(error, match=message):
            save(model, folder)
    with pytest.raises(TypeError, match="max_shard_size must be a number of bytes"):
        save(fresh(), tmp_path / "model", max_shard_size="5GB")
    with pytest.raises(TypeError, match="tokenizer must be one of transformers, got a str"):
        save(fresh(), tmp_path / "model", tokenizer="bert")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_loaded(rng, tmp_path):
    save(converted(rng), tmp_path / "model")
    with pytest.raises(ValueError, match="has no config.json to make a model from; give model="):
        load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load(tmp_path / "nothing")
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        load(tmp_path / "model", model=nn.Linear)
    more = fresh().append(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"\['5.bias', '5.weight'\] missing, nothing extra"):
        load(tmp_path / "model", model=more)
