"""Activation functions go into the sparse layer before them where the model's code allows it, and only there."""

import pytest
import torch
from torch import nn

from sparsekit import SparseLinear, convert, densify, finalize, prune
from sparsekit.fusion import FusedActivation, recognise
from sparsekit.model_code import following


def small_model(name: str) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    sizes = {
        "bert": {"intermediate_size": 64, "num_hidden_layers": 2},
        "distilbert": {"hidden_dim": 64, "n_layers": 2, "n_heads": 2, "dim": 32},
        "llama": {"intermediate_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 1},
        "opt": {"ffn_dim": 64, "num_hidden_layers": 2, "word_embed_proj_dim": 32},
    }[name]
    common = {"vocab_size": 40, "hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 16}
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(name, **common, **sizes)).eval()


@pytest.mark.parametrize(
    ("name", "activation"), [("bert", "gelu"), ("distilbert", "gelu"), ("llama", "silu"), ("opt", "relu")]
)
def test_models_of_transformers_answer_the_same(name, activation):
    model = small_model(name)
    prune(model, 0.6)
    finalize(model)
    ids = torch.arange(20).reshape(2, 10)
    with torch.inference_mode():
        expected = model(input_ids=ids).last_hidden_state
        report = convert(model, min_sparsity=0.5)
        assert report.fused == report.to_dict()["fused"] == 2
        assert "2 activation functions fused" in str(report)
        fused = {layer.activation for layer in model.modules() if isinstance(layer, SparseLinear)}
        assert fused == {None, activation}
        torch.testing.assert_close(model(input_ids=ids).last_hidden_state, expected)
        densify(model)
        assert not any(isinstance(module, FusedActivation | SparseLinear) for module in model.modules())
        assert torch.equal(model(input_ids=ids).last_hidden_state, expected)


def test_a_user_can_say_no():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    assert convert(model, min_sparsity=0.0, fuse=False).fused == 0
    assert type(model[1]) is nn.GELU


class Block(nn.Module):
    """Two linear layers and an activation function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.GELU()
        self.norm = nn.LayerNorm(8)


class Fusable(Block):
    def forward(self, x):
        return self.second(self.act(self.first(x)))


class ReturnsIt(Block):
    def forward(self, x):
        y = self.first(self.second(x))
        return self.act(y)


class NormBetween(Block):
    def forward(self, x):
        return self.second(self.act(self.norm(self.first(x))))


class UsedTwice(Block):
    def forward(self, x):
        return self.act(self.first(x)) + self.act(self.second(x))


class ResultUsedElsewhere(Block):
    def forward(self, x):
        y = self.first(x)
        z = self.act(y)
        return y + self.second(z)


class CalledElsewhere(Fusable):
    def features(self, x):
        return self.first(x)


class HalfOfIt(Block):
    def forward(self, x):
        y = self.first(x)
        y = self.act(y[..., :4])
        return y


class WithBranch(Block):
    def forward(self, x):
        y = self.first(x)
        if x.shape[0] > 1:
            y = self.act(y)
        return self.second(y)


@pytest.mark.parametrize("cls", [Fusable, ReturnsIt])
def test_code_that_hands_the_result_on_is_fused(cls):
    torch.manual_seed(0)
    block, x = cls().eval(), torch.randn(3, 8)
    expected = block(x)
    assert convert(block, min_sparsity=0.0).fused == 1
    assert (block.first.activation, block.second.activation) == ("gelu", None)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("cls", [NormBetween, UsedTwice, ResultUsedElsewhere, CalledElsewhere, HalfOfIt, WithBranch])
def test_code_that_does_anything_else_is_left_alone(cls):
    torch.manual_seed(0)
    block, x = cls().eval(), torch.randn(3, 8)
    expected = block(x)
    assert following(cls).get("first") != "act"
    assert convert(block, min_sparsity=0.0).fused == 0
    torch.testing.assert_close(block(x), expected)


def test_classes_without_source_are_left_alone():
    space: dict = {"Block": Block}
    exec("class Hidden(Block):\n    def forward(self, x):\n        return self.act(self.first(x))", space)  # noqa: S102
    assert following(space["Hidden"]) == {}


def test_a_layer_in_two_places_or_with_hooks_is_left_alone():
    block = Fusable()
    block.second = block.first
    assert convert(block, min_sparsity=0.0).fused == 0
    hooked = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    hooked[1].register_forward_hook(lambda *_: None)
    assert convert(hooked, min_sparsity=0.0).fused == 0


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "relu"),
        (nn.GELU(), "gelu"),
        (nn.GELU(approximate="tanh"), "gelu_tanh"),
        (nn.SiLU(), "silu"),
        (nn.ReLU6(), None),
        (nn.Hardswish(), None),
        (nn.GLU(), None),
        (nn.PReLU(), None),
        (nn.Softmax(dim=-1), None),
        (nn.Identity(), None),
    ],
)
def test_functions_are_recognised_by_what_they_compute(module, name):
    assert recognise(module) == name


@pytest.mark.parametrize(
    ("key", "name"), [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("silu", "silu"), ("quick_gelu", None)]
)
def test_functions_of_transformers_are_recognised(key, name):
    from transformers.activations import ACT2FN

    assert recognise(ACT2FN[key]) == name
