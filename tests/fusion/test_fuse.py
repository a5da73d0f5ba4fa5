"""`fuse` on whole transformers models: same outputs, names and files, and `unfuse`."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

import sparsekit
from sparsekit import SparseLinear, conversion_report, convert, finalize, fuse, prune, unfuse
from sparsekit.fusion.fused_linear import FusedLinear
from sparsekit.fusion.joining import joined_with
from sparsekit.fusion.norms import AddLayerNorm

_BERT = {"intermediate_size": 64, "num_hidden_layers": 2}
_LLAMA = {**_BERT, "num_key_value_heads": 1}
#: Sizes, norms that add, groups of layers with their sizes.
MODELS = {
    "bert": (_BERT, 5, [3, 3]),
    "roberta": (_BERT, 5, [3, 3]),
    "xlm-roberta": (_BERT, 5, [3, 3]),
    "electra": ({**_BERT, "embedding_size": 32}, 5, [3, 3]),
    "mpnet": (_BERT, 5, [3, 3]),
    "albert": ({**_BERT, "embedding_size": 32}, 3, [3]),
    "distilbert": ({"hidden_dim": 64, "n_layers": 2, "n_heads": 2, "dim": 32}, 5, [3, 3]),
    "deberta-v2": (_BERT, 4, [2, 2]),
    "llama": (_LLAMA, 0, [3, 2, 3, 2]),
    "qwen3": ({**_LLAMA, "head_dim": 16}, 0, [3, 2, 3, 2]),
    "opt": ({"ffn_dim": 64, "num_hidden_layers": 2, "word_embed_proj_dim": 32}, 0, [3, 3]),
}


def converted(name: str) -> nn.Module:
    common = {"vocab_size": 40, "hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 40}
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(name, **{**common, **MODELS[name][0]})).eval()
    prune(model, 0.6)
    finalize(model)
    convert(model, min_sparsity=0.5)
    return model


@pytest.fixture(autouse=True)
def kernels_for_any_size(monkeypatch):
    monkeypatch.setattr("sparsekit.fusion.norms._FEW", 0)


def groups(model: nn.Module) -> list[int]:
    found = [(module, joined_with(module)) for module in model.modules()]
    return [len(layers) for module, layers in found if layers and module is layers[0]]


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_the_same_and_everything_can_be_undone(name):
    model = converted(name)
    classes = [type(module) for module in model.modules()]
    inputs = {"input_ids": torch.arange(20).reshape(2, 10), "attention_mask": torch.ones(2, 10, dtype=torch.int64)}
    with torch.inference_mode():
        expected = model(**inputs, output_hidden_states=True).hidden_states
        keys = list(model.state_dict())
        assert fuse(model) is model
        found = model(**inputs, output_hidden_states=True).hidden_states
        torch.testing.assert_close(found, expected)
        assert sum(type(module) is AddLayerNorm for module in model.modules()) == MODELS[name][1]
        assert groups(model) == MODELS[name][2]
        assert list(model.state_dict()) == keys
        assert torch.equal(copy.deepcopy(model)(**inputs)[0], model(**inputs)[0])
        unfuse(model)
        torch.testing.assert_close(model(**inputs, output_hidden_states=True).hidden_states, expected)
    assert not any(joined_with(module) or isinstance(module, AddLayerNorm) for module in model.modules())
    assert [type(module) for module in model.modules()] == classes


@torch.no_grad()
def test_a_fused_model_is_saved_as_it_would_be(tmp_path):
    model = converted("bert")
    sparsekit.save(model, tmp_path / "plain")
    sparsekit.save(fuse(model), tmp_path / "fused")
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "fused" / file.name).read_bytes() == file.read_bytes(), file.name
    ids = torch.arange(20).reshape(2, 10)
    loaded = fuse(sparsekit.load(tmp_path / "fused"))
    assert groups(loaded) == [3, 3]
    torch.testing.assert_close(loaded(input_ids=ids)[0], model(input_ids=ids)[0])


@torch.no_grad()
def test_a_model_whose_own_calls_are_fused(tmp_path):
    sizes = {"vocab_size": 40, "dim": 32, "n_heads": 2, "n_layers": 1, "hidden_dim": 64}
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model("distilbert", **sizes)).eval()
    ids, cls = torch.arange(20).reshape(2, 10), type(model)
    expected, signature = model(input_ids=ids), inspect.signature(model.forward)
    assert conversion_report(convert(model, min_sparsity=0.0)).fused == 2
    assert model.vocab_transform.activation == "gelu"
    fuse(model)
    sparsekit.save(model, tmp_path / "model")
    again = sparsekit.load(tmp_path / "model")
    opened = cls.from_pretrained(tmp_path / "model")
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301 - made right here
    for one in (model, copy.deepcopy(model), copied, again, opened):
        assert isinstance(one, cls)
        assert type(one).__name__ == cls.__name__
        assert inspect.signature(one.forward) == signature
        found = one(input_ids=ids)
        assert type(found) is type(expected)
        torch.testing.assert_close(found.logits, expected.logits)
    assert type(sparsekit.densify(unfuse(model))) is cls


class Chain(nn.Module):
    """Two pairs of a layer and an activation function, of which `convert` may fuse one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(32, 32), nn.Linear(32, 32), nn.ReLU()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))


def sequence():
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())


@torch.no_grad()
@pytest.mark.parametrize("make", [Chain, sequence])
def test_unfuse_leaves_what_convert_fused(make):
    model, x = make().eval(), torch.randn(3, 32)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name in layers:
        model.get_submodule(name).weight.data[:, ::2] = 0.0
    convert(model, targets=[layers[0]], min_sparsity=0.0)
    convert(model, targets=[layers[1]], min_sparsity=0.0, fuse=False)
    expected = model(x)
    before = [type(module) for module in model.modules()]
    for _ in range(2):
        fuse(fuse(model))
        assert all(type(model.get_submodule(name)) is FusedLinear for name in layers)
        torch.testing.assert_close(unfuse(copy.deepcopy(model))(x), expected)
        unfuse(model)
        assert [type(model.get_submodule(name)) for name in layers] == [FusedLinear, SparseLinear]
        torch.testing.assert_close(model(x), expected)
    fuse(model)
    assert [type(module) for module in unfuse(unfuse(model)).modules()] == before
    sparsekit.densify(model)
    assert type(model) in (Chain, nn.Sequential)
    torch.testing.assert_close(model(x), expected)


@torch.no_grad()
def test_unfuse_leaves_attention_and_norms_of_the_user():
    model, ids = converted("bert"), torch.arange(20).reshape(2, 10)
    norm = model.embeddings.LayerNorm
    model.embeddings.LayerNorm = AddLayerNorm(norm.normalized_shape, eps=norm.eps)
    model.embeddings.LayerNorm.load_state_dict(norm.state_dict())
    sparsekit.use_attention(model)
    expected = model(input_ids=ids)[0]
    unfuse(fuse(model))
    assert model.config._attn_implementation == "sparsekit"
    assert type(model.embeddings.LayerNorm) is AddLayerNorm
    assert type(model.encoder.layer[0].output.LayerNorm) is nn.LayerNorm
    torch.testing.assert_close(model(input_ids=ids)[0], expected)


@torch.no_grad()
def test_the_compiled_model_is_one_graph():
    model, ids = converted("bert"), torch.arange(20).reshape(2, 10)
    expected = model(input_ids=ids)[0]
    compiled = torch.compile(fuse(model), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(input_ids=ids)[0], expected)


@pytest.mark.parametrize("chunk_size", [0, 5])
@torch.no_grad()
def test_a_chunked_method_keeps_its_signature(chunk_size):
    model, ids = converted("bert"), torch.arange(20).reshape(2, 10)
    layers = model.encoder.layer
    layers[0].chunk_size_feed_forward = chunk_size
    expected = model(input_ids=ids)[0]
    wanted = inspect.signature(layers[0].feed_forward_chunk)
    fuse(model)
    for fused in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - made right here
        for layer in fused.encoder.layer:
            assert inspect.signature(layer.feed_forward_chunk) == wanted
            assert layer.feed_forward_chunk.method.__self__ is layer
        torch.testing.assert_close(fused(input_ids=ids)[0], expected)
    layers[1].feed_forward_chunk = torch.neg  # of somebody else
    unfuse(model)
    assert "feed_forward_chunk" not in vars(layers[0])
    assert layers[1].feed_forward_chunk is torch.neg


def test_gradients_are_those_of_the_model():
    model, ids = converted("distilbert"), torch.arange(20).reshape(2, 10)
    fused = fuse(copy.deepcopy(model))
    for one in (model, fused):
        one(input_ids=ids)[0].square().sum().backward()
    for (name, one), (_, other) in zip(model.named_parameters(), fused.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


@torch.no_grad()
def test_models_that_attention_does_not_fit_are_fused_all_the_same():
    encoder = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True).eval()
    x = torch.randn(2, 5, 32)
    expected = encoder(x)
    assert fuse(encoder) is encoder
    torch.testing.assert_close(encoder(x), expected)
    unfuse(encoder)
    assert type(encoder) is nn.TransformerEncoderLayer


def test_a_forward_that_is_exchanged_in_the_class_counts_from_then_on(monkeypatch):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(8, 8), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.fc(x))

    def negated(self, x: torch.Tensor) -> torch.Tensor:
        return -self.act(self.fc(x))

    x = torch.randn(3, 8)
    convert(nn.Sequential(Block()), min_sparsity=0.0)
    monkeypatch.setattr(Block, "forward", negated)
    model = nn.Sequential(Block())
    expected = model(x)
    convert(model, min_sparsity=0.0)
    torch.testing.assert_close(model(x), expected)
