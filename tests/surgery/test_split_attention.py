"""`nn.MultiheadAttention` and torch's transformer layers, split into linear layers: pruned, converted, stored."""

import copy
import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import sparsekit
from sparsekit import SparseLinear, conversion_report, convert, densify, finalize, load_state_dict, prune
from sparsekit.splitting import PaddedEncoder, SplitAttention, split

warnings.filterwarnings("ignore", message=".*nested tensor.*")
KINDS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no_bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "add_bias_kv": True, "batch_first": True},
    "other_sizes": {"kdim": 6, "vdim": 10},
}


def randomized(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():  # biases start at zero and would show no mistake
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return module.eval()


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_split_attention_is_attention(kind, need_weights):
    attention = randomized(nn.MultiheadAttention(8, 2, **KINDS[kind]))
    made = split(attention)
    assert isinstance(made, SplitAttention)
    sizes = (8, attention.kdim, attention.vdim)
    queries, keys, batch = 3, 5, 2
    inputs = [torch.randn(batch, n, size) for n, size in zip((queries, keys, keys), sizes, strict=True)]
    if not attention.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    masks = [None, torch.rand(queries, keys) > 0.7, torch.randn(batch * 2, queries, keys)]
    masks[1][:, 0] = False
    for pad, mask, average in itertools.product((None, padding), masks, (True, False)):
        if pad is not None and mask is not None and mask.dtype != torch.bool:
            pad = torch.zeros(pad.shape).masked_fill(pad, -torch.inf)
        arguments = {"key_padding_mask": pad, "attn_mask": mask, "average_attn_weights": average}
        found = made(*inputs, need_weights=need_weights, **arguments)
        expected = attention(*inputs, need_weights=need_weights, **arguments)
        torch.testing.assert_close(found, expected)
    single = [x[0] if attention.batch_first else x[:, 0] for x in inputs]
    torch.testing.assert_close(made(*single), attention(*single))
    back = made.merge()
    assert type(back) is nn.MultiheadAttention
    assert {k: v.tolist() for k, v in back.state_dict().items()} == {
        k: v.tolist() for k, v in attention.state_dict().items()
    }
    torch.testing.assert_close(back(*inputs), attention(*inputs))


def test_prune_reaches_all_matrices_and_keeps_the_parameters():
    model = randomized(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)))
    before = dict(model.named_parameters())
    x = torch.randn(2, 4, 8)
    reached = prune(model, 0.5)
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "linear1", "linear2"]
    assert sorted(reached) == sorted(f"0.{name}" for name in names)
    attention = model[0].self_attn
    assert attention.parametrizations.in_proj_weight.original is before["0.self_attn.in_proj_weight"]
    for part in attention.in_proj_weight.chunk(3):
        assert int((part == 0).sum()) == 32
    prune(model, 0.75)
    assert int((attention.in_proj_weight == 0).sum()) == 144
    masked = model(x)
    finalize(model)
    assert type(attention) is nn.MultiheadAttention
    assert attention.in_proj_weight is before["0.self_attn.in_proj_weight"]
    torch.testing.assert_close(model(x), masked)


def test_criteria_with_statistics_reach_the_attention():
    def loss(model, batch):
        return model(batch["src"]).square().mean()

    for criterion in ("wanda", "taylor", "fisher"):
        model = nn.Sequential()
        encoder = randomized(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1))
        model.add_module("encoder", encoder)
        batches = [{"src": torch.randn(2, 4, 8)} for _ in range(3)]
        arguments = {} if criterion == "wanda" else {"loss": loss}
        reached = prune(encoder, 0.5, criterion=criterion, batches=batches, **arguments)
        assert len(reached) == 6
        assert int((encoder.layers[0].self_attn.in_proj_weight == 0).sum()) == 96


def encoder(norm: bool = False, **arguments) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **arguments)
    return randomized(nn.TransformerEncoder(layer, 2, nn.LayerNorm(8) if norm else None))


def pruned(model: nn.Module) -> nn.Module:
    prune(model, 0.7)
    return finalize(model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("arguments", [{}, {"norm": True}, {"norm_first": True}, {"activation": "gelu"}], ids=str)
def test_encoders_with_padding(arguments, dtype):
    model = pruned(encoder(**arguments))
    if dtype == "bfloat16":  # weights that it holds exactly
        model = model.bfloat16().float()
    dense = copy.deepcopy(model)
    report = conversion_report(convert(model, min_sparsity=0.5, dtype=dtype))
    assert report.converted == len(report.layers) == 12, str(report)
    x = torch.randn(3, 5, 8)
    right = torch.arange(5) >= torch.tensor([[5], [3], [1]])
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            for padding in (right, right.roll(2, 1), torch.zeros(3, 5).masked_fill(right, -torch.inf)):
                torch.testing.assert_close(
                    model(x, src_key_padding_mask=padding), dense(x, src_key_padding_mask=padding)
                )
            torch.testing.assert_close(model(x), dense(x))
            torch.testing.assert_close(model(x, causal, is_causal=True), dense(x, causal, is_causal=True))
            torch.testing.assert_close(model(x, causal.isinf(), right[:, :]), dense(x, causal.isinf(), right))
    assert type(model) in (PaddedEncoder, nn.TransformerEncoder)
    densify(model)
    assert type(model) is nn.TransformerEncoder
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention
    for key, tensor in dense.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
    with torch.no_grad():
        torch.testing.assert_close(model(x, src_key_padding_mask=right), dense(x, src_key_padding_mask=right))


def test_some_layers_only():
    dense = pruned(encoder())
    x, padding = torch.randn(2, 5, 8), torch.arange(5) >= torch.tensor([[5], [3]])
    for targets in (["layers.1.linear2"], ["layers.0.self_attn.q_proj"], ["layers.1.self_attn.out_proj"], ["layers.1"]):
        model = copy.deepcopy(dense)
        convert(model, targets=targets, min_sparsity=0.0)
        with torch.no_grad():
            torch.testing.assert_close(model(x), dense(x))
            torch.testing.assert_close(model(x, src_key_padding_mask=padding), dense(x, src_key_padding_mask=padding))
        restored = load_state_dict(encoder(), model.state_dict())
        with torch.no_grad():
            assert torch.equal(restored(x, src_key_padding_mask=padding), model(x, src_key_padding_mask=padding))


def transformer() -> nn.Module:
    return randomized(nn.Transformer(8, 2, 1, 2, 16, batch_first=True))


def test_whole_transformers_and_their_folders(tmp_path):
    model = pruned(transformer())
    dense = copy.deepcopy(model)
    report = conversion_report(convert(model, min_sparsity=0.5))
    assert report.converted == len(report.layers) == 6 + 2 * 10
    source, target = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    arguments = {
        "src_key_padding_mask": torch.arange(5) >= torch.tensor([[5], [3]]),
        "memory_key_padding_mask": torch.arange(5) >= torch.tensor([[5], [3]]),
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(3).isinf(),
    }
    with torch.no_grad():
        expected = model(source, target, **arguments)
        torch.testing.assert_close(expected, dense(source, target, **arguments))
        sparsekit.save(model, tmp_path)
        for again in (
            sparsekit.load(tmp_path, model=transformer()),
            load_state_dict(transformer(), model.state_dict()),
            copy.deepcopy(model),
        ):
            assert torch.equal(again(source, target, **arguments), expected)
            assert sum(isinstance(module, SparseLinear) for module in again.modules()) == 26
            densify(again)
            torch.testing.assert_close(again(source, target, **arguments), dense(source, target, **arguments))
    assert sparsekit.verify(tmp_path).passed
    sparsekit.save(model, tmp_path / "dense", dense=True)


def test_int8():
    model = pruned(encoder())
    x = torch.randn(2, 5, 8)
    expected = model(x)
    report = conversion_report(convert(model, min_sparsity=0.5, dtype="int8"))
    assert report.converted == 12
    assert (model(x) - expected).abs().max() < 0.1 * expected.abs().max()


def test_what_is_not_converted_stays_what_it_was():
    model = encoder()
    prune(model, 0.3)
    finalize(model)
    attention, parameters = model.layers[0].self_attn, dict(model.named_parameters())
    convert(model, min_sparsity=0.5)
    assert model.layers[0].self_attn is attention
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    attention.register_forward_hook(lambda *_: None)
    prune(model, 0.7)
    finalize(model)
    report = conversion_report(convert(model, min_sparsity=0.5))
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "computes with its weight itself" in reasons["layers.0.self_attn.out_proj"]
    assert "layers.0.self_attn.in_proj_weight" in [other.name for other in report.others]
    model(torch.randn(2, 3, 8))
    assert type(model.layers[0].self_attn) is nn.MultiheadAttention, "hooks would not run"
    assert not isinstance(model.layers[0].self_attn.out_proj, SparseLinear), "it is read by the attention"
    assert isinstance(model.layers[1].self_attn, SplitAttention)


def test_attentions_that_share_a_parameter_are_left_alone():
    model = encoder()
    first, second = (layer.self_attn for layer in model.layers)
    second.in_proj_weight = first.in_proj_weight
    prune(model, 0.7)
    finalize(model)
    convert(model, min_sparsity=0.5)
    assert model.layers[0].self_attn is first
    assert second.in_proj_weight is first.in_proj_weight
    module = nn.ModuleList([first, first])
    prune(module, 0.7)
    convert(module, min_sparsity=0.5)
    assert isinstance(module[0], SplitAttention)
    assert module[0] is module[1]
    assert densify(module)[0] is module[1]


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        query = x @ self.attention.in_proj_weight[:8].T
        return self.attention(query, x, x)[0]


def test_an_attention_whose_parameters_others_read_is_left_alone():
    model = randomized(nn.Sequential(Reader()))
    x = torch.randn(2, 3, 8)
    expected = model(x)
    report = conversion_report(convert(model, min_sparsity=0.0))
    assert report.converted == 0
    assert type(model[0].attention) is nn.MultiheadAttention
    torch.testing.assert_close(model(x), expected)


def test_an_attention_pruned_by_torch_is_left_alone():
    model = randomized(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)))
    torch_prune.l1_unstructured(model[0].self_attn, "in_proj_weight", 0.5)
    x = torch.randn(2, 3, 8)
    expected = model(x)
    report = conversion_report(convert(model, targets=["0.linear1", "0.self_attn"], min_sparsity=0.0))
    assert [layer.name for layer in report.layers if layer.converted] == ["0.linear1"]
    torch.testing.assert_close(model(x), expected)


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.encoder(x, src_key_padding_mask=padding)


def test_padded_batches_while_an_encoder_is_split():
    model = randomized(Padded())
    batches = [{"x": torch.randn(2, 5, 8), "padding": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])}]
    prune(model, 0.5, criterion="wanda", batches=batches)
    assert type(model.encoder) is nn.TransformerEncoder, "split for a while only"
    finalize(model)
    expected = model(**batches[0])
    report = conversion_report(convert(model, min_sparsity=0.4, batches=batches))
    assert report.whole.fidelity.cosine > 0.9999
    assert type(model.encoder) is PaddedEncoder
    torch.testing.assert_close(model(**batches[0]), expected)
    assert type(densify(model).encoder) is nn.TransformerEncoder


def test_a_converted_encoder_that_cannot_run_is_dense_again(monkeypatch):
    model = pruned(randomized(Padded()))
    batches = [{"x": torch.randn(2, 5, 8), "padding": torch.zeros(2, 5, dtype=torch.bool)}]
    before = [type(module) for module in model.modules()]
    monkeypatch.setattr(SparseLinear, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(model, min_sparsity=0.4, batches=batches)
    assert [type(module) for module in model.modules()] == before


def test_outputs_have_the_layout_of_the_dense_ones():
    attention = randomized(nn.MultiheadAttention(8, 2))
    x = torch.randn(5, 2, 8)
    assert split(attention)(x, x, x)[0].is_contiguous() == attention(x, x, x)[0].is_contiguous()


class ReaderAbove(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2)}) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            attention = block["attention"]
            x = attention(x, x, x)[0] + x @ attention.in_proj_weight[:8].T
        return x


def test_an_attention_whose_parameters_are_read_from_above_is_left_alone():
    model = randomized(ReaderAbove())
    x = torch.randn(3, 2, 8)
    expected = model(x)
    assert conversion_report(convert(model, min_sparsity=0.0)).converted == 0
    torch.testing.assert_close(model(x), expected)


def test_hooks_of_any_kind_keep_an_attention_whole():
    attention = nn.MultiheadAttention(8, 2)
    attention.register_state_dict_pre_hook(lambda *_: None)
    assert split(attention) is None


def test_what_was_set_on_a_split_module_is_still_set_when_it_is_dense_again():
    model = pruned(randomized(nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, dropout=0.1)})))
    convert(model, min_sparsity=0.4)
    model["attention"].dropout = 0.7
    assert densify(model)["attention"].dropout == 0.7


class ReadingLayer(nn.TransformerEncoderLayer):
    def forward(self, src: torch.Tensor, **_) -> torch.Tensor:
        return nn.functional.linear(src, self.linear1.weight, self.linear1.bias)


def test_a_layer_of_ones_own_that_reads_a_weight():
    model = pruned(randomized(nn.Sequential(ReadingLayer(8, 2, 16, batch_first=True))))
    x = torch.randn(2, 3, 8)
    expected = model(x)
    report = conversion_report(convert(model, min_sparsity=0.4))
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert "computes with its weight itself" in reasons["0.linear1"]
    torch.testing.assert_close(model(x), expected)
