"""Heads that are removed: narrow models equal dense ones with those heads' outputs at zero."""

import copy

import pytest
import torch
from families import batches, family, logits, made_again, parameters, zero_inputs
from torch import nn

from sparsekit.pruning import prune_heads
from sparsekit.pruning.attention import find_attentions

HEADS = {
    "bert": [[1], [0, 3]],
    "llama": [[0, 1], []],
    "gpt2": [[2], [0, 1]],
    "opt": [[0], [3]],
    "distilbert": [[3], []],
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", HEADS)
def test_a_model_without_heads_is_the_dense_one_with_their_outputs_at_zero(name, attention):
    dense, batch = family(name, attention), batches(1)[0]
    narrow = copy.deepcopy(dense)
    found = find_attentions(dense)
    left = prune_heads(narrow, heads=dict(enumerate(HEADS[name])))
    assert left == {one.name: 4 - len(gone) for one, gone in zip(found, HEADS[name], strict=True)}
    for one, gone in zip(found, HEADS[name], strict=True):
        zero_inputs(dense, one.output, [head * 8 + feature for head in gone for feature in range(8)])
    assert parameters(narrow) < parameters(dense)
    torch.testing.assert_close(logits(narrow, batch), logits(dense, batch))
    narrow.config._attn_implementation = attention
    again = made_again(narrow)
    torch.testing.assert_close(logits(again, batch), logits(narrow, batch))
    assert [vars(a).get("num_heads") for a in again.modules()] == [vars(a).get("num_heads") for a in narrow.modules()]


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_model_without_heads_generates_with_its_cache(name):
    model = family(name)
    prune_heads(model, heads={1: [2, 3]})
    prompt = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    cached = model.generate(**prompt, max_new_tokens=6, do_sample=False, use_cache=True)
    assert torch.equal(cached, model.generate(**prompt, max_new_tokens=6, do_sample=False, use_cache=False))


def test_grouped_queries_go_with_their_key_and_value():
    model = family("llama")
    assert prune_heads(model, 0.5, criterion="magnitude") == {f"model.layers.{i}.self_attn": 2 for i in range(2)}
    attention = model.model.layers[0].self_attn
    assert [layer.out_features for layer in (attention.q_proj, attention.k_proj, attention.v_proj)] == [16, 8, 8]
    assert attention.o_proj.in_features == 16
    assert attention.num_key_value_groups == 2
    with pytest.raises(ValueError, match=r"each 2 query heads in order share one .* such as \[0, 1\], got \[1, 2\]"):
        prune_heads(family("llama"), heads={0: [1, 2]})


def test_heads_that_say_nothing_go_first():
    model = family("bert")
    layer = model.bert.encoder.layer[1].attention.output.dense
    with torch.no_grad():
        layer.weight[:, 16:24] = 0.0
    given = {"batches": batches(), "targets": ["bert.encoder.layer.1"]}
    kept = copy.deepcopy(model)
    assert prune_heads(kept, 0.25, **given) == {"bert.encoder.layer.1.attention": 3}
    torch.testing.assert_close(logits(kept, batches()[0]), logits(model, batches()[0]))
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.value.weight[:8] = 0.0
        model.bert.encoder.layer[0].attention.self.value.bias[:8] = 0.0
    expected = logits(model, batches()[0])
    assert prune_heads(model, 0.25, criterion="activation", batches=batches(), ignore=["re:.*layer.1.attention"])
    torch.testing.assert_close(logits(model, batches()[0]), expected)


def test_head_errors():
    model = family("bert")
    for arguments, message in (
        ({}, "give either fraction or threshold"),
        ({"fraction": 0.5}, "criterion 'taylor' needs calibration batches"),
        ({"fraction": 0.5, "heads": {0: [1]}}, "heads stands alone"),
        ({"heads": {2: [1]}}, r"heads names the attentions \[2\]; the model has bert.encoder.layer.0.attention"),
        ({"heads": {0: [4]}}, r"bert.encoder.layer.0.attention has the heads 0 to 3, got \[4\]"),
        ({"heads": {0: range(4)}}, "must keep at least one head"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_heads(model, **arguments)
    with pytest.raises(ValueError, match="found no attention"):
        prune_heads(nn.Sequential(nn.Linear(2, 2)), 0.5, criterion="magnitude")
    normed = family("llama")
    normed.model.layers[0].self_attn.q_norm = nn.LayerNorm(32).double()
    with pytest.raises(ValueError, match=r"has the parameter q_norm.weight of shape \[32\]"):
        prune_heads(normed, 0.5, criterion="magnitude")
