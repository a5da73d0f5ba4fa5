"""Importers: files written by the tools themselves give the original weights."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from matrices import random_weight
from safetensors.torch import load_file, save_file
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from sparsekit import finalize, prune, save
from sparsekit.importers import (
    import_compressed_tensors,
    import_scipy,
    merge_lora,
    read_weights,
    rewritten_config,
    without_masks,
)

DATA = Path(__file__).parents[1] / "data"
#: Written by compressed-tensors 0.7.1 and 0.9.4, see tests/data/make_sparse_bitmask.py.
FOLDERS = sorted(path.name for path in DATA.glob("sparse-*"))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_compressed_tensors(folder):
    expected = load_file(DATA / folder / "dense.safetensors")
    assert (expected["dense.weight"] == 0).float().mean() >= 0.5
    same(import_compressed_tensors(DATA / folder), expected)
    same(read_weights(DATA / folder), expected)
    same(read_weights(DATA / folder / "model.safetensors"), expected)
    assert rewritten_config(DATA / folder) == {"model_type": "bert", "hidden_size": 20}


def test_there_are_files_of_every_layout():
    assert FOLDERS == ["sparse-24-bitmask-0.9.4", "sparse-bitmask-0.7.1", "sparse-bitmask-0.9.4"]


def layout() -> dict[str, torch.Tensor]:
    """Byte for byte: columns 0 and 8 of row 0, none of row 1, columns 1, 2 and 9 of row 2, of ten."""
    return {
        "layer.shape": torch.tensor([3, 10]),
        "layer.compressed": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]),
        "layer.bitmask": torch.tensor([[0b1, 0b1], [0, 0], [0b110, 0b10]], dtype=torch.uint8),
        "layer.row_offsets": torch.tensor([0, 2, 2]),
        "layer.bias": torch.ones(3),
    }


def test_the_published_layout(tmp_path):
    save_file(layout(), tmp_path / "model.safetensors")
    expected = torch.zeros(3, 10)
    expected[0, [0, 8]], expected[2, [1, 2, 9]] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])
    same(import_compressed_tensors(tmp_path), {"layer.weight": expected, "layer.bias": torch.ones(3)})


def test_several_weight_files(tmp_path):
    shutil.copytree(DATA / FOLDERS[-1], tmp_path, dirs_exist_ok=True)
    whole = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    where = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(sorted(whole))}
    for shard in set(where.values()):
        save_file({name: whole[name] for name in whole if where[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    same(read_weights(tmp_path), load_file(tmp_path / "dense.safetensors"))


@pytest.mark.parametrize("section", [{"format": "dense"}, {"format": "sparse-bitmask", "targets": ["Linear"]}])
def test_a_configuration_that_says_sparse_of_dense_weights(tmp_path, section):
    state = network().state_dict()
    save_file(state, tmp_path / "model.safetensors")
    said = {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}, "sparsity_config": section}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "quantization_config": said}))
    same(import_compressed_tensors(tmp_path), state)
    assert rewritten_config(tmp_path) == {"model_type": "bert"}


def pruned_by_torch(model: nn.Module) -> nn.Module:
    torch_prune.l1_unstructured(model[0], "weight", 0.6)
    torch_prune.random_unstructured(model[0], "weight", 0.3)
    torch_prune.l1_unstructured(model[2], "weight", 0.5)
    torch_prune.l1_unstructured(model[2], "bias", 0.5)
    return model


def pruned_by_us(model: nn.Module) -> nn.Module:
    prune(model, 0.7)
    return model


@pytest.mark.parametrize("make", [pruned_by_torch, pruned_by_us])
@pytest.mark.parametrize("inside", [None, "state_dict"])
def test_state_dicts_with_masks(tmp_path, make, inside):
    masked = make(network())
    state = masked.state_dict()
    torch.save(state if inside is None else {"epoch": 3, inside: state}, tmp_path / "model.pt")
    plain = network()
    plain.load_state_dict(read_weights(tmp_path / "model.pt"))
    assert (plain[0].weight == 0).float().mean() >= 0.5
    x = torch.randn(5, 12)
    assert torch.equal(plain(x), masked(x))
    same(without_masks(plain.state_dict()), plain.state_dict())


def test_masks_of_a_sparsifier():
    """Which keeps them out of the model's state dict."""
    masked = network()
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(masked, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    with pytest.raises(ValueError, match="give without_masks the masks that a sparsifier of torch.ao.pruning keeps"):
        without_masks(masked.state_dict())
    masks = {name: entry["mask"] for name, entry in sparsifier.state_dict()["state"].items()}
    plain = network()
    plain.load_state_dict(without_masks(masked.state_dict(), masks))
    assert (plain[0].weight == 0).sum() == 60
    x = torch.randn(5, 12)
    assert torch.equal(plain(x), masked(x))
    sparsifier.squash_mask()
    same(without_masks(masked.state_dict(), masks), plain.state_dict())


def test_masks_that_do_not_fit():
    ones = torch.ones(2, 3)
    for state, message in (
        ({"a.weight_orig": ones, "a.weight_mask": torch.ones(3)}, r"mask of 'a.weight' must have shape \[2, 3\]"),
        ({"a.weight_orig": ones, "a.weight_mask": ones * 0.5}, "must hold 0 and 1 only"),
        ({"a.weight_orig": ones, "a.weight_mask": ones, "a.weight": ones}, "must be there once"),
        ({"a.parametrizations.weight.0.mask": ones}, "a mask for 'a.weight' without the tensor"),
        ({"a.parametrizations.weight.original": ones}, "of a parametrization without a mask beside it"),
        (parametrizations.weight_norm(nn.Linear(3, 2)).state_dict(), "of a parametrization without a mask beside it"),
    ):
        with pytest.raises(ValueError, match=message):
            without_masks(state)
    hidden = {"w_orig": torch.tensor([1.0, np.inf, np.nan]), "w_mask": torch.tensor([1.0, 0.0, 0.0])}
    assert without_masks(hidden)["w"].tolist() == [1.0, 0.0, 0.0]


def test_folders_of_torch_files(tmp_path):
    state = pruned_by_torch(network()).state_dict()
    torch.save({f"encoder.{name}": tensor for name, tensor in state.items()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    same(read_weights(tmp_path, prefix="encoder."), without_masks(state))
    with pytest.raises(ValueError, match=r"no tensor's name begins with 'bert.'; they are like \['encoder.0.bias'"):
        read_weights(tmp_path, prefix="bert.")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_csr_tensors_in_a_state_dict(rng, tmp_path):
    weight = torch.from_numpy(random_weight(rng, (9, 33), 0.8))
    torch.save({"0.weight": weight.to_sparse_csr()}, tmp_path / "model.pt")
    same(read_weights(tmp_path / "model.pt"), {"0.weight": weight})


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr"])
def test_matrices_of_scipy(rng, tmp_path, form):
    sparse = pytest.importorskip("scipy.sparse")
    weights = {name: random_weight(rng, (12, 30), 0.8) for name in ("encoder.0", "encoder.1.weight")}
    weights["encoder.1.weight"][3] = 0.0
    for name, weight in weights.items():
        sparse.save_npz(tmp_path / f"{name}.npz", sparse.csr_matrix(weight.astype(np.float64)).asformat(form))
    expected = {"encoder.0.weight": weights["encoder.0"], "encoder.1.weight": weights["encoder.1.weight"]}
    same(read_weights(tmp_path), {name: torch.from_numpy(weight) for name, weight in expected.items()})
    (csr,) = import_scipy({"mine": tmp_path / "encoder.0.npz"}).values()
    assert np.array_equal(csr.to_dense(), weights["encoder.0"])
    assert list(import_scipy(tmp_path / "encoder.0.npz")) == ["encoder.0.weight"]


class Network(nn.Module):
    """What torch.onnx leaves without a name: weights of linear layers, with and without a bias, deep in containers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(30, 8)
        self.body = nn.Sequential(nn.Linear(8, 12, bias=False), nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8)))
        self.layers = nn.ModuleList([nn.Linear(8, 8, bias=False), nn.Linear(8, 6)])
        self.register_buffer("shift", torch.randn(6))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter += torch.randn_like(parameter)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.body(self.embedding(ids))
        for layer in self.layers:
            x = layer(x)
        return x + self.shift


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("names", ["scopes", "numbers"])
def test_models_of_the_older_exporter(tmp_path, names):
    onnx = pytest.importorskip("onnx")
    model, path = Network(), tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.tensor([[1, 2]]),), path, dynamo=False)
    expected = model.state_dict()
    if names == "numbers":  # as torch wrote it before 1.13: only biases lead to layers
        proto = onnx.load(path)
        for node in proto.graph.node:
            node.name = f"{node.op_type}_1"
            for number, name in enumerate(node.input):
                node.input[number] = name.replace("onnx::MatMul_", "")
        for tensor in proto.graph.initializer:
            tensor.name = tensor.name.replace("onnx::MatMul_", "")
        onnx.save(proto, path)
    found = read_weights(path)
    if names == "numbers":
        nameless = {name: found.pop(name) for name in list(found) if name.isdecimal()}
        assert sorted(map(tuple, (tensor.shape for tensor in nameless.values()))) == [(8, 8), (8, 12)]
        expected = {name: expected[name] for name in expected if name not in ("body.0.weight", "layers.0.weight")}
    same(found, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_adapters_are_merged_and_zeros_stay(masked):
    peft = pytest.importorskip("peft")
    base = nn.Sequential(OrderedDict(zip(("first", "between", "last"), network(), strict=True)))
    prune(base, 0.7)
    if not masked:
        finalize(base)
    before, other = base.first.weight.detach().clone(), base.last.weight.detach().clone()
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=6, target_modules=["first"]))
    lora = model.base_model.model.first
    nn.init.normal_(lora.lora_B["default"].weight)
    product = lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    expected = torch.where(before != 0, before + 3.0 * product, 0.0).detach()
    merged = merge_lora(model)
    assert type(merged.first) is nn.Linear
    torch.testing.assert_close(merged.first.weight.detach(), expected)
    assert bool((merged.first.weight[before == 0] == 0).all())
    assert torch.equal(merged.last.weight, other)
    with pytest.raises(TypeError, match="must be a peft.PeftModel, got Sequential"):
        merge_lora(network())


def test_what_is_none_of_these(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    save(network(), tmp_path / "ours")
    for path, error, message in (
        (tmp_path / "nothing", FileNotFoundError, "no file or folder .*; expected a folder with model.safetensors"),
        (tmp_path / "empty", ValueError, "expected a folder with .*; got the folder"),
        (tmp_path / "model.gguf", ValueError, r"a file that ends in .safetensors, .pt, .*; got the file"),
        (tmp_path / "ours", ValueError, "was written by sparsekit.save; open it with sparsekit.load"),
    ):
        with pytest.raises(error, match=message):
            read_weights(path)
