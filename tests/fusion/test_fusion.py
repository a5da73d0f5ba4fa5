"""Activation functions are fused into the sparse layer before them only where the model's code allows it."""

import collections
import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from sparsekit import SparseLinear, conversion_report, convert, densify, finalize, prune
from sparsekit.fusion.activations import recognize
from sparsekit.fusion.fused_linear import FusedActivation, FusedLinear


@pytest.fixture
def fused_calls(monkeypatch) -> collections.Counter:
    """How often layers were asked for their activation function, by its name."""
    found: collections.Counter = collections.Counter()
    original = FusedLinear.activated

    def spy(layer, input):
        found[layer.activation] += 1
        return original(layer, input)

    monkeypatch.setattr(FusedLinear, "activated", spy)
    return found


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
        report = conversion_report(convert(model, min_sparsity=0.5))
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
    assert conversion_report(convert(model, min_sparsity=0.0, fuse=False)).fused == 0
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


def twice(function):
    @functools.wraps(function)
    def wrapper(self, x):
        return function(self, x) + function(self, x)

    return wrapper


class Decorated(Block):
    @twice
    @torch.no_grad()
    def forward(self, x):
        y = self.first(x)
        y = self.act(y)
        return self.second(y)


class ByAMethod(Block):
    """Other calls of the layer and the function are nobody's business."""

    def forward(self, x):
        return self.hidden(x) + self.first(x) + self.act(x)

    def hidden(self, x):
        return self.act(self.first(x))


class ByAnother(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Fusable()

    def forward(self, x):
        return self.block(x) + self.block.first(x)


def first_of(block, x):
    return block.first(x)


class ByAHelper(Block):
    def forward(self, x):
        return self.act(self.first(x)) + first_of(self, x)


class ByAProperty(Block):
    @property
    def layer(self):
        return self.first

    def forward(self, x):
        return self.act(self.first(x)) + self.layer(x)


class ByGetattr(Block):
    def forward(self, x):
        return self.act(self.first(x)) + getattr(self, "fir" + "st")(x)


class ByChildren(Block):
    def forward(self, x):
        return self.act(self.first(x)) + sum(child(x) for child in self.children())


class Overridden(Fusable):
    def forward(self, x):
        return super().forward(x) + self.act(self.first(x)) + self.act(self.second(x))


CALLS = [Fusable, ReturnsIt, Decorated, ByAMethod, ByAnother, ByAHelper, ByAProperty, ByGetattr, ByChildren]


@pytest.mark.parametrize("cls", CALLS)
def test_a_call_that_hands_the_result_on_is_fused_and_no_other(cls, fused_calls):
    torch.manual_seed(0)
    model, x = cls().eval(), torch.randn(3, 8)
    expected = model(x)
    assert conversion_report(convert(model, min_sparsity=0.0)).fused == 1
    torch.testing.assert_close(model(x), expected)
    assert fused_calls == {"gelu": 2 if cls is Decorated else 1}
    block = getattr(model, "block", model)
    for copied in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):  # noqa: S301 - made right here
        assert torch.equal(copied(x), block(x))
    densify(model)
    assert type(block) is (Fusable if cls is ByAnother else cls)
    assert torch.equal(model(x), expected)


def test_methods_of_bases_are_fused_too(fused_calls):
    torch.manual_seed(0)
    model, x = Overridden().eval(), torch.randn(3, 8)
    expected = model(x)
    assert conversion_report(convert(model, min_sparsity=0.0)).fused == 2
    torch.testing.assert_close(model(x), expected)
    assert fused_calls == {"gelu": 2}  # those of its own method


class NormBetween(Block):
    def forward(self, x):
        return self.second(self.act(self.norm(self.first(x))))


class ResultUsedElsewhere(Block):
    def forward(self, x):
        y = self.first(x)
        z = self.act(y)
        return y + self.second(z)


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


class UsedAfterAll(Block):
    def forward(self, x):
        y = x
        try:
            y = self.first(x)
            return self.act(y)
        finally:
            self.seen = y


class UsedInside(Block):
    def forward(self, x):
        def seen():
            return y

        y = self.first(x)
        y = self.act(y)
        return y + seen()


@pytest.mark.parametrize("cls", [NormBetween, ResultUsedElsewhere, HalfOfIt, WithBranch, UsedAfterAll, UsedInside])
def test_code_that_does_anything_else_is_left_alone(cls):
    torch.manual_seed(0)
    block, x = cls().eval(), torch.randn(3, 8)
    expected = block(x)
    assert conversion_report(convert(block, min_sparsity=0.0)).fused == 0
    torch.testing.assert_close(block(x), expected)


def test_classes_without_source_are_left_alone():
    space: dict = {"Block": Block}
    exec("class Hidden(Block):\n    def forward(self, x):\n        return self.act(self.first(x))", space)  # noqa: S102
    assert conversion_report(convert(space["Hidden"](), min_sparsity=0.0)).fused == 0


@pytest.mark.parametrize("changed", ["first", "act"])
@pytest.mark.parametrize(
    "change",
    [
        lambda module, seen: module.register_forward_hook(lambda _, inputs, output: seen.append(output)),
        lambda module, seen: module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        lambda module, seen: setattr(module, "forward", _noting(module.forward, seen)),
    ],
    ids=["hook", "pre-hook", "forward"],
)
@pytest.mark.parametrize("is_late", [False, True])
def test_whoever_listens_hears_what_the_model_computes(changed, change, is_late):
    torch.manual_seed(0)
    blocks, x, heard = [Fusable().eval()], torch.randn(3, 8), []
    blocks.append(copy.deepcopy(blocks[0]))
    for block, is_converted in zip(blocks, (False, True), strict=True):
        heard.append([])
        if is_converted and is_late:
            convert(block, min_sparsity=0.0)
        change(getattr(block, changed), heard[-1])
        if is_converted and not is_late:
            convert(block, min_sparsity=0.0)
    torch.testing.assert_close(blocks[1](x), blocks[0](x))
    torch.testing.assert_close(heard[1], heard[0])
    assert len(heard[0]) == 1


def _noting(forward, seen):
    def noted(x):
        seen.append(x)
        return forward(x)

    return noted


def test_a_function_exchanged_later_is_the_one_that_counts():
    torch.manual_seed(0)
    block, x = Fusable().eval(), torch.randn(3, 8)
    other = copy.deepcopy(block)
    convert(block, min_sparsity=0.0)
    block.act = other.act = nn.Tanh()
    torch.testing.assert_close(block(x), other(x))


def test_a_layer_in_two_places_is_fused_where_the_function_follows(fused_calls):
    torch.manual_seed(0)
    block, x = Fusable().eval(), torch.randn(3, 8)
    block.second = block.first
    expected = block(x)
    assert conversion_report(convert(block, min_sparsity=0.0)).fused == 1
    torch.testing.assert_close(block(x), expected)
    assert fused_calls == {"gelu": 1}


def sequential() -> nn.Sequential:
    torch.manual_seed(0)
    layer, act = nn.Linear(8, 8), nn.GELU()
    return nn.Sequential(layer, act, nn.Linear(8, 8), layer, nn.LayerNorm(8), act, nn.Linear(8, 8), nn.SiLU()).eval()


class Owner(nn.Module):
    def __init__(self, use) -> None:
        super().__init__()
        self.layers, self.use = sequential(), use

    def forward(self, x):
        return self.use(self.layers, x)


def one_by_one(layers, x):
    for layer in layers:
        x = layer(x) + x
    return x


@pytest.mark.parametrize(
    "use",
    [
        lambda layers, x: layers(x),
        lambda layers, x: layers[0](x),
        lambda layers, x: layers[-2](x) + layers(x),
        lambda layers, x: layers[:1](x) + layers[1:4](x) + layers[6:](x),
        lambda layers, x: layers.get_submodule("6")(x),
        one_by_one,
    ],
)
def test_sequences_used_whole_in_parts_and_with_modules_twice(use):
    owner, x = Owner(use), torch.randn(3, 8)
    expected = owner(x)
    assert conversion_report(convert(owner, min_sparsity=0.0)).fused == 2
    torch.testing.assert_close(owner(x), expected)
    torch.testing.assert_close(copy.deepcopy(owner)(x), expected)
    densify(owner)
    assert type(owner.layers) is nn.Sequential
    assert torch.equal(owner(x), expected)


def test_a_sequence_asks_its_layers(fused_calls):
    model = sequential()
    convert(model, min_sparsity=0.0)
    model(torch.randn(3, 8))
    assert fused_calls == {"gelu": 1, "silu": 1}


@pytest.mark.parametrize(
    "module",
    [nn.ReLU6(True), nn.Hardsigmoid(True), nn.Hardtanh(0.0, 4.0, True), nn.Threshold(0.5, 0.0, True)],
    ids=lambda module: type(module).__name__,
)
def test_functions_that_write_to_their_input_are_not_taken_for_others(module):
    assert recognize(module) is None
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), module), 20 * torch.randn(3, 8)
    expected = model(x)
    assert conversion_report(convert(model, min_sparsity=0.0)).fused == 0
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (nn.SiLU(inplace=True), "silu"),
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
def test_functions_are_recognized_by_what_they_compute(module, name):
    assert recognize(module) == name


@pytest.mark.parametrize(
    ("key", "name"), [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("silu", "silu"), ("quick_gelu", None)]
)
def test_functions_of_transformers_are_recognized(key, name):
    from transformers.activations import ACT2FN

    assert recognize(ACT2FN[key]) == name
