"""Models whose code reads the `weight` of a layer: its type, which sparse layers have, or its values."""

import copy
import types

import pytest
import torch
import transformers
from families import SMALL
from torch import nn
from torch.nn import functional as F

from sparsekit import SparseLinear, conversion_report, convert, densify, finalize, load, prune, save
from sparsekit.introspect.weight_users import weights_used

IDS = torch.arange(5, 23).reshape(2, 9)


def t5(**arguments) -> transformers.T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 60}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0, **arguments)
    return transformers.T5ForConditionalGeneration(config).eval()


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, decoder_input_ids=IDS[:, :4]).logits


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_t5_is_converted_runs_and_comes_back(tmp_path, kind):
    model = t5(feed_forward_proj=kind)
    prune(model, 0.8, ignore=["lm_head"])
    finalize(model)
    expected = logits(model)
    assert conversion_report(convert(model, ignore=["lm_head"], min_sparsity=0.5)).converted == (
        32 if kind == "relu" else 36
    )
    assert isinstance(model.encoder.block[0].layer[1].DenseReluDense.wo, SparseLinear)
    torch.testing.assert_close(logits(model), expected)
    save(model, tmp_path / "model")
    opened = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "model")
    for again in (load(tmp_path / "model"), opened):
        assert torch.equal(logits(again), logits(model))
        assert again.encoder.embed_tokens.weight is again.shared.weight
    dense = densify(copy.deepcopy(model))
    assert torch.equal(model.generate(IDS, max_new_tokens=4), dense.generate(IDS, max_new_tokens=4))


def test_a_layer_kept_in_float32_has_its_input_converted():
    model = t5().half()
    feed_forward = model.encoder.block[0].layer[1].DenseReluDense
    feed_forward.wo.float()
    x = torch.randn(2, 3, 32).half()
    dense = feed_forward(x)
    convert(model, targets=["re:.*wo"], min_sparsity=0.0)
    assert feed_forward.wo.weight.dtype == torch.float32
    assert feed_forward(x).dtype == dense.dtype == torch.float32
    torch.testing.assert_close(feed_forward(x), dense)


def test_what_a_sparse_weight_answers():
    layer = SparseLinear.from_linear(nn.Linear(8, 4, dtype=torch.bfloat16))
    weight = layer.weight
    assert (weight.shape, weight.dtype, weight.device) == ((4, 8), torch.bfloat16, torch.device("cpu"))
    assert (weight.size(0), weight.dim(), weight.numel()) == (4, 2, 32)
    assert repr(weight) == "AbsentWeight(shape=[4, 8], dtype=torch.bfloat16, device='cpu')"
    assert layer.float().weight.dtype == torch.float32
    assert "weight" not in dict(layer.named_parameters())
    assert "weight" not in layer.state_dict()


@pytest.mark.parametrize(
    "use",
    [
        lambda weight: F.linear(torch.ones(2, 8), weight),
        lambda weight: weight != 0,
        lambda weight: weight + 1,
        lambda weight: weight.data.zero_(),
        lambda weight: weight.t(),
        lambda weight: weight[0],
        lambda weight: weight.tolist(),
        lambda weight: copy.deepcopy(weight),
    ],
)
def test_a_sparse_weight_is_never_computed_with(use):
    weight = SparseLinear.from_linear(nn.Linear(8, 4)).weight
    with pytest.raises(RuntimeError, match=r"no values to compute with; call the layer.*convert\(model, ignore="):
        use(weight)


class AsksForType(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 64)
        self.fc.weight.data *= torch.rand(64, 64) > 0.8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.fc.weight, torch.Tensor) and x.dtype != self.fc.weight.dtype:
            x = x.to(self.fc.weight.dtype)
        return self.fc(x)


def test_a_model_that_asks_is_compiled_and_exported_whole():
    torch._dynamo.reset()
    model, x = AsksForType().eval(), torch.randn(3, 64).half()
    assert conversion_report(convert(model, min_sparsity=0.5)).converted == 1
    with torch.no_grad():
        expected = model(x)
        assert expected.dtype == torch.float32
        assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(x), expected)
        assert torch.equal(torch.export.export(model, (x,)).module()(x), expected)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.slow, self.config, self.calls = False, types.SimpleNamespace(slow=False, times=2), 0
        self.reset()

    def reset(self) -> None:
        nn.init.normal_(self.fc.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.fc(x))


class InABranch(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 100:
            return x
        return F.linear(x, self.other.weight) if x.dim() > 1 else self.other(x)


class InAMethod(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(super().forward(x))

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.other.weight.t()


class InABase(InAMethod):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


class InAProperty(Layers):
    @property
    def largest(self) -> torch.Tensor:
        return self.other.weight.abs().max()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.largest


class ByAVariable(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.other
        return F.linear(x, layer.weight)


class ByName(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, getattr(self, "other").weight)  # noqa: B009


def helper(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, layer.weight)


class HandedOver(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return helper(self.other, x)


class HandedOverByName(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return helper(x=x, layer=self.other)


def deep_helper(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, block.other.weight)


class InAHelper(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return deep_helper(self, x)


class OfAState(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return F.linear(x, self.other.weight) if self.calls > 5 else self.other(x)


USES = [InABranch, InAMethod, InABase, InAProperty, ByAVariable, ByName, HandedOver, HandedOverByName, InAHelper]


@pytest.mark.parametrize("cls", [*USES, OfAState])
def test_a_layer_whose_weight_may_be_computed_with_stays_dense(cls):
    model, x = cls().eval(), torch.randn(3, 8)
    expected = model(x)
    report = conversion_report(convert(model, min_sparsity=0.0))
    user = {"InABase": "InABase", "InAHelper": "deep_helper"}.get(cls.__name__, cls.__name__)
    assert {layer.name: layer.reason for layer in report.layers} == {
        "fc": "",
        "other": f"{user} computes with its weight itself",
    }
    torch.testing.assert_close(model(x), expected)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Layers() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            x = F.linear(x, block.other.weight) + number
        return x @ self.blocks[0].fc.weight


def test_weights_are_found_in_loops_and_lists():
    model = Outer()
    used = {"blocks.0.other", "blocks.1.other", "blocks.2.other"}
    assert set(weights_used(model)) == used | {f"blocks.{i}.fc" for i in range(3)}, "any of a list's"


class NeverRuns(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.config.slow or (self.config.times > 3 and x.dim() > 1):
            return F.linear(x, self.other.weight)
        x = self.fc(x) if not self.slow and not self.training else F.linear(x, self.fc.weight)
        return self.other(x)

    def merge(self) -> torch.Tensor:  # which nothing calls
        return self.other.weight @ self.fc.weight


def test_code_that_settings_rule_out_does_not_count():
    model = NeverRuns()
    assert weights_used(model) == {}
    model.config.times = 4
    assert set(weights_used(model)) == {"other"}
    model.slow = True
    assert set(weights_used(model)) == {"other", "fc"}


class AsksMuch(Layers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight_is_there = hasattr(self.other, "weight") and self.other.weight is not None
        assert weight_is_there
        assert not self.other.weight.requires_grad
        assert self.other.weight.ndim == self.other.weight.dim() == 2
        assert self.other.weight.is_floating_point()
        assert self.other.weight.element_size() == 4
        assert self.fc.weight.numel() == self.fc.weight.size(0) * self.fc.weight.shape[1]
        return super().forward(x.to(self.fc.weight.dtype).to(self.fc.weight.device))


def test_facts_are_no_values():
    model = AsksMuch().requires_grad_(requires_grad=False)
    expected = model(torch.ones(1, 8))
    assert conversion_report(convert(model, min_sparsity=0.0)).converted == 2
    torch.testing.assert_close(model(torch.ones(1, 8)), expected)


def test_without_source_what_is_mentioned_beside_a_weight_is_used():
    space: dict = {"Layers": Layers, "linear": F.linear}
    exec("class Hidden(Layers):\n    def forward(self, x):\n        return linear(x, self.other.weight)", space)  # noqa: S102
    assert set(weights_used(space["Hidden"]())) == {"other"}
    exec("class Calls(Layers):\n    def forward(self, x):\n        return self.other(self.fc(x))", space)  # noqa: S102
    assert weights_used(space["Calls"]()) == {}


def test_layouts_encoder():
    from transformers.models.layoutlmv2.modeling_layoutlmv2 import LayoutLMv2Encoder

    sizes = {**SMALL, "intermediate_size": 48, "has_spatial_attention_bias": False}
    encoder = LayoutLMv2Encoder(transformers.LayoutLMv2Config(**sizes, has_relative_attention_bias=True))
    assert set(weights_used(encoder)) == {"rel_pos_bias"}


_MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 50, "time_step_rank": 4}
_JAMBA = {
    **{"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    **{"num_experts": 2, "num_key_value_heads": 2, "intermediate_size": 48, "mamba_d_state": 4, "mamba_dt_rank": 4},
}
_LAYOUT = {**SMALL, "intermediate_size": 48, "max_position_embeddings": 20, "coordinate_size": 6, "shape_size": 4}
#: Class of the model, class of its config, sizes, and the last names of the layers that it computes with itself.
USERS = {
    "bert": ("BertModel", "BertConfig", {**SMALL, "intermediate_size": 48}, ""),
    "deberta": ("DebertaModel", "DebertaConfig", {**SMALL, "intermediate_size": 48}, "in_proj"),  # for `query_states`
    "bloom": ("BloomModel", "BloomConfig", {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4}, ""),
    "llama": ("LlamaModel", "LlamaConfig", {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2}, ""),
    "mt5": ("MT5EncoderModel", "MT5Config", {"d_model": 32, "d_ff": 48, "num_layers": 2, "vocab_size": 50}, ""),
    "mobilebert": (
        *("MobileBertForMaskedLM", "MobileBertConfig"),
        {**SMALL, "intermediate_size": 48, "embedding_size": 16, "intra_bottleneck_size": 16},
        "decoder dense",
    ),
    "mamba": ("MambaModel", "MambaConfig", _MAMBA, "dt_proj"),
    "falcon_mamba": ("FalconMambaModel", "FalconMambaConfig", _MAMBA, "dt_proj"),
    "jamba": ("JambaModel", "JambaConfig", {**SMALL, **_JAMBA}, "dt_proj"),
    "rwkv": ("RwkvModel", "RwkvConfig", {**SMALL, "intermediate_size": 48}, "output value"),
    "layoutlmv3": (
        *("LayoutLMv3Model", "LayoutLMv3Config"),
        {**_LAYOUT, "has_relative_attention_bias": True, "has_spatial_attention_bias": True, "visual_embed": False},
        "rel_pos_bias rel_pos_x_bias rel_pos_y_bias",
    ),
}


@pytest.mark.parametrize("name", USERS)
@torch.inference_mode()
def test_library_models_run_once_converted(name):
    model_class, config_class, sizes, users = USERS[name]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes)).eval()
    fresh = copy.deepcopy(model)
    expected = model(input_ids=IDS)[0]
    for one in (model, fresh):  # before a call and after it
        report = conversion_report(convert(one, min_sparsity=0.0))
        kept = {layer.name for layer in report.layers if "computes with its weight itself" in layer.reason}
        assert {layer.rpartition(".")[2] for layer in kept} == set(users.split())
        assert report.converted >= len(report.layers) - len(kept) - 1
        torch.testing.assert_close(one(input_ids=IDS)[0], expected, rtol=1e-4, atol=1e-5)
