"""Heads that are removed: narrow models equal dense ones with those heads' outputs at zero."""

import copy
import re

import pytest
import torch
from families import batches, family, logits, made_again, parameters, zero_inputs
from named_families import named
from torch import nn

from sparsekit.pruning import prune_heads
from sparsekit.pruning.structured.attention import find_attentions

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


@pytest.mark.parametrize("name", ["t5", "mpnet"])
def test_attentions_that_share_position_biases_lose_the_same_heads(name):
    model, shared = named(name), 4
    found = [attention for attention in find_attentions(model) if attention.tables]
    one, *others = [attention for attention in found if attention.tables == found[0].tables]
    assert len(others) == shared - 1
    assert f"{one.tables[0]}" in dict(model.named_modules())
    refused = copy.deepcopy(model)
    with pytest.raises(ValueError, match="they lose the same heads; take all of them"):
        prune_heads(refused, heads={one.name: [1]})
    with pytest.raises(ValueError, match="they lose the same heads; take all of them"):
        prune_heads(refused, 0.5, criterion="magnitude", ignore=[f"re:{re.escape(one.name)}"])
    differing = {each.name: [number % 4] for number, each in enumerate([one, *others])}
    with pytest.raises(ValueError, match="name the same heads for both"):
        prune_heads(refused, heads=differing)
    assert parameters(refused) == parameters(model)
    everywhere = {attention.name: [2] for attention in find_attentions(model)}
    assert set(prune_heads(model, heads=everywhere).values()) == {3}
    assert model.get_submodule(one.tables[0]).weight.shape[1] == 3


def test_numbers_of_heads_that_a_config_says_for_all_stay_one():
    model = named("phi3")
    with pytest.raises(ValueError, match="Phi3ForCausalLM reads one number of heads for all its attentions"):
        prune_heads(model, heads={0: [0, 1]})
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)
    prune_heads(model, 0.5, criterion="magnitude")
    config = model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 8)
    assert not hasattr(config, "sparsekit_widths")
    prune_heads(model, 0.5, criterion="magnitude")
    assert (config.num_attention_heads, config.num_key_value_heads) == (1, 1), "the one key and value head stays"


def test_queries_of_one_key_and_value_head_go_alone():
    model = named("falcon-multi-query")
    assert set(prune_heads(model, heads={0: [1], 2: [0, 3]}).values()) == {3, 2}
    attention = model.transformer.h[0].self_attention
    assert (attention.query_key_value.out_features, attention.dense.in_features) == ((3 + 2) * 8, 24)


class Scaled(nn.Module):
    """Divides by how many heads there are: narrow layers fit together, and say something else."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(8, 8) for _ in range(4))
        self.head_dim, self.num_heads = 2, 4

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(input).unflatten(-1, (self.num_heads, 2)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.o_proj(mixed.transpose(1, 2).flatten(2) / self.num_heads)


def test_what_runs_and_says_something_else_is_undone():
    torch.manual_seed(0)
    model = nn.Sequential(Scaled()).train()
    before, x = copy.deepcopy(model), {"input": torch.randn(3, 5, 8)}
    message = "computes something else without these heads than with their contribution left out"
    given = {"criterion": "activation", "batches": [x]}
    with pytest.raises(ValueError, match=message):
        prune_heads(model, 0.5, **given)
    assert model.training
    assert model[0].num_heads == 4
    assert torch.equal(model(**x), before(**x))
    with pytest.warns(UserWarning, match="Sequential was not run without these heads, since no input for it is known"):
        prune_heads(model, 0.5, criterion="magnitude")
