"""Layers of other classes than `nn.Linear`: transformers' `Conv1D` and classes derived from `nn.Linear`."""

import copy

import pytest
import torch
import transformers
from torch import nn
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D

import sparsekit
from sparsekit import SparseLinear, conversion_report, convert, densify, finalize, load_state_dict, prune
from tests.families import PADDING


def gpt2(cls: str = "GPT2LMHeadModel", config: str = "GPT2Config") -> nn.Module:
    torch.manual_seed(0)
    sizes = getattr(transformers, config)(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32, **PADDING)
    return getattr(transformers, cls)(sizes).eval()


GPTS = {"gpt2": ("GPT2LMHeadModel", "GPT2Config"), "openai": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig")}
IDS = torch.tensor([[5, 9, 12, 7, 3], [4, 8, 20, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits[MASK.bool()]


def pruned(name: str) -> nn.Module:
    model = gpt2(*GPTS[name])
    prune(model, 0.8, ignore=["lm_head"])
    return finalize(model)


@pytest.mark.parametrize("name", GPTS)
def test_gpt2_is_converted_and_computes_the_same(name):
    model = pruned(name)
    dense = copy.deepcopy(model)
    report = conversion_report(convert(model, ignore=["lm_head"], min_sparsity=0.5))
    assert report.converted == len(report.layers) == 8, str(report)
    assert not any(isinstance(module, Conv1D) for module in model.modules())
    torch.testing.assert_close(logits(model), logits(dense))
    torch.testing.assert_close(logits(sparsekit.fuse(copy.deepcopy(model))), logits(dense))
    arguments = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(IDS[:1], **arguments), dense.generate(IDS[:1], **arguments))
    densify(model)
    assert sum(isinstance(module, Conv1D) for module in model.modules()) == 8
    for key, tensor in dense.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_the_weight_of_a_sparse_conv1d_has_the_shape_of_a_conv1d():
    layer = Conv1D(6, 4)
    layer.bias.data.normal_()
    sparse = SparseLinear.from_linear(layer)
    assert (sparse.out_features, sparse.in_features) == (6, 4)
    assert sparse.weight.shape == layer.weight.shape == (4, 6)
    assert sparse.dense_class is Conv1D
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(sparse(x), layer(x))
    assert torch.equal(sparse.to_linear().weight, layer.weight)
    assert torch.equal(sparse.to_linear()(x), layer(x))


@pytest.mark.parametrize("dtype", ["float32", "int8", "bfloat16"])
def test_folders_of_gpt2(tmp_path, dtype):
    model = pruned("gpt2")
    convert(model, ignore=["lm_head"], min_sparsity=0.5, dtype=dtype)
    expected = logits(model)
    sparsekit.save(model, tmp_path)
    for loaded in (sparsekit.load(tmp_path), transformers.AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert sum(isinstance(module, SparseLinear) for module in loaded.modules()) == 8
        assert torch.equal(logits(loaded), expected)
        assert sum(isinstance(module, Conv1D) for module in densify(loaded).modules()) == 8
    assert sparsekit.verify(tmp_path).passed
    again = load_state_dict(gpt2(), model.state_dict())
    assert torch.equal(logits(again), expected)
    assert sum(isinstance(module, Conv1D) for module in densify(again).modules()) == 8


def test_a_pruned_gpt2_is_stored_sparse_and_comes_back_dense(tmp_path):
    model = pruned("gpt2")
    sparsekit.save(model, tmp_path / "pruned")
    sparsekit.save(model, tmp_path / "dense", dense=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("pruned", "dense")]
    assert sizes[0] < 0.75 * sizes[1]
    for loaded in (
        sparsekit.load(tmp_path / "pruned"),
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned"),
    ):
        assert torch.equal(logits(loaded), logits(model))
        assert sum(isinstance(module, Conv1D) for module in loaded.modules()) == 8


def falcon() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.FalconConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bias=True
    )
    return transformers.FalconForCausalLM(config).eval()


def test_falcon_is_converted(tmp_path):
    model = falcon()
    prune(model, 0.8, ignore=["lm_head"])
    dense = copy.deepcopy(finalize(model))
    report = conversion_report(convert(model, ignore=["lm_head"], min_sparsity=0.5))
    assert report.converted == len(report.layers) == 8, str(report)
    torch.testing.assert_close(logits(model), logits(dense))
    sparsekit.save(model, tmp_path)
    assert torch.equal(logits(sparsekit.load(tmp_path)), logits(model))
    assert torch.equal(logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
    densify(model)
    assert sum(type(module) is FalconLinear for module in model.modules()) == 8
    assert torch.equal(logits(model), logits(dense))


class Scaled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class Clipped(nn.Linear):
    def forward(self, input):
        return super().forward(input.clamp(-100, 100))


class Counting(nn.Linear):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__(in_features, out_features, bias)
        self.adapter = nn.Parameter(torch.zeros(out_features, in_features))

    def forward(self, input):
        return super().forward(input) + input @ self.adapter.T


class Rescaled(Scaled):
    pass


class Router(nn.Linear):
    def __init__(self, size):
        super().__init__(size, 4)

    def forward(self, input):
        return super().forward(input).topk(2)


class Named(nn.Linear):
    pass


def test_only_what_computes_as_nn_linear_is_converted():
    model = nn.Sequential(
        Scaled(8, 8), Clipped(8, 8), Counting(8, 8), Named(8, 8), FalconLinear(8, 8), Rescaled(8, 8)
    ).eval()
    prune(model, 0.5, targets=["re:.*"])
    finalize(model)
    x = torch.randn(3, 8) * 200
    expected = model(x)
    reasons = {
        layer.name: layer.reason
        for layer in conversion_report(convert(model, targets=["re:.*"], min_sparsity=0.0)).layers
    }
    assert "computes something else than nn.Linear" in reasons["0"]
    assert "computes something else than nn.Linear" in reasons["1"]
    assert "computes something else than nn.Linear" in reasons["5"]
    assert "computes something else than nn.Linear" in reasons["2"]
    assert reasons["3"] == reasons["4"] == ""
    torch.testing.assert_close(model(x), expected)
    assert [type(module) for module in densify(model)] == [Scaled, Clipped, Counting, Named, FalconLinear, Rescaled]
    assert list(prune(nn.Sequential(Router(8), nn.Linear(8, 8)), 0.5)) == ["1"], "a router is no layer to prune"
    named = Named(8, 8)
    named.rank = 4
    with pytest.raises(TypeError, match="a Named with rank, which nn.Linear has not"):
        SparseLinear.from_linear(named)
    with pytest.raises(TypeError, match="computes something else"):
        SparseLinear.from_linear(Scaled(8, 8))


class Picky(nn.Linear):
    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        assert in_features % 8 == 0
        super().__init__(in_features, out_features, bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)


def test_a_class_that_takes_no_small_sizes_stays_dense():
    model = nn.Sequential(Picky(8, 8), nn.Linear(8, 8))
    report = conversion_report(convert(model, min_sparsity=0.0))
    assert [type(module) for module in model] == [Picky, SparseLinear]
    assert report.converted == 1
