"""Models whose code asks for the `weight` of a layer: for its type, which sparse layers answer, or for its values."""

import copy

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from sparsekit import SparseLinear, convert, densify, finalize, load, prune, save
from sparsekit.model_code import weights_used

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
    assert convert(model, ignore=["lm_head"], min_sparsity=0.5).converted == (32 if kind == "relu" else 36)
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
    assert convert(model, min_sparsity=0.5).converted == 1
    with torch.no_grad():
        expected = model(x)
        assert expected.dtype == torch.float32
        assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(x), expected)
        assert torch.equal(torch.export.export(model, (x,)).module()(x), expected)


class Computes(AsksForType):
    def __init__(self) -> None:
        super().__init__()
        self.other, self.rare = nn.Linear(64, 64), nn.Linear(64, 64)
        self.reset()

    def reset(self) -> None:
        for layer in (self.other, self.rare):
            layer.weight.data.zero_()
        nn.init.ones_(self.rare.weight)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.other.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.product(super().forward(x))
        return x @ self.rare.weight if self.training else self.rare(x)


def test_a_layer_whose_weight_the_model_computes_with_stays_dense():
    assert weights_used(Computes) == {"other"}
    model = Computes().eval()
    report = convert(model, min_sparsity=0.0)
    assert {layer.name: layer.reason for layer in report.layers} == {
        "fc": "",
        "other": "Computes computes with its weight itself",
        "rare": "",
    }
    assert model(torch.ones(1, 64)).shape == (1, 64)
    with pytest.raises(RuntimeError, match="no values to compute with"):
        model.train()(torch.ones(1, 64))


def test_classes_of_transformers():
    from transformers.models.bloom.modeling_bloom import BloomMLP
    from transformers.models.mamba.modeling_mamba import MambaMixer
    from transformers.models.mobilebert.modeling_mobilebert import MobileBertLMPredictionHead
    from transformers.models.t5.modeling_t5 import T5DenseActDense
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    assert weights_used(T5DenseActDense) == set()
    assert weights_used(BloomMLP) == set(), "only with a setting that nobody uses"
    assert weights_used(MobileBertLMPredictionHead) == {"dense", "decoder"}
    assert weights_used(MambaMixer) == {"dt_proj"}
    assert weights_used(WavLMAttention) == {"q_proj", "k_proj", "v_proj", "out_proj"}
