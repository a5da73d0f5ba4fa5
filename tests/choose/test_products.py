"""Products of a model against its linear layers in PyTorch, and what each is called with."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest
from tiny_decoders import decoder
from tiny_encoders import change_json, encoder
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.products import Factor, ModelProducts, Product, Shape, products_of
from sparsekit.engine.batches import THREAD_TOKENS
from sparsekit.introspect.transformer_blocks import transformer_blocks

#: Linear layers of transformer blocks that are multiplied with positions, when a model is compiled.
OF_POSITIONS = ("pos_key_proj", "pos_query_proj")


def block_linears(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Linear layers of a model's transformer blocks, and their shapes [out_features, in_features]."""
    found = {}
    for block, module in transformer_blocks(model).items():
        for name, one in module.named_modules():
            if isinstance(one, nn.Linear | Conv1D):
                found[f"{block}.{name}"] = tuple(one.weight.T.shape if isinstance(one, Conv1D) else one.weight.shape)
    return found


def layer_shapes(products: ModelProducts) -> dict[str, tuple[int, int]]:
    """Shapes of linear layers as the products have them, parts put together."""
    rows, columns = Counter(), {}
    for product in products.products:
        for factor in product.factors:
            rows[factor.layer] += factor.out_features
            columns[factor.layer] = product.in_features
    return {layer: (rows[layer], columns[layer]) for layer in rows}


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"])
def test_products_of_encoders_are_the_linear_layers_of_their_blocks(family, tmp_path):
    model = encoder(family)
    model.save_pretrained(tmp_path)
    found = products_of(tmp_path)
    expected = {name: shape for name, shape in block_linears(model).items() if not name.endswith(OF_POSITIONS)}
    assert layer_shapes(found) == expected
    assert set(found.layers) == set(expected)
    assert found.weights == sum(math.prod(shape) for shape in expected.values())
    assert not found.decodes
    assert not any(product.by_text for product in found.products)


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "gpt_neox", "llama", "phi3", "qwen3"])
def test_products_of_decoders_are_the_linear_layers_of_their_blocks(family, tmp_path):
    model = decoder(family)
    model.save_pretrained(tmp_path)
    found = products_of(tmp_path)
    assert layer_shapes(found) == block_linears(model)
    assert found.decodes


def test_what_the_core_joins_is_one_product(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "bert")
    assert products_of(tmp_path / "bert").shapes == {
        Shape((36, 36, 36), 36): 3,
        Shape((36,), 36): 3,
        Shape((50,), 36): 3,
        Shape((36,), 50): 3,
    }
    encoder("modernbert").save_pretrained(tmp_path / "modernbert")
    joined, _, gated, _ = products_of(tmp_path / "modernbert").products[:4]
    assert joined.shape.out_features == (36, 36, 36)
    assert joined.shares() == {"layers.0.attn.Wqkv": pytest.approx(1.0)}
    assert gated.shares() == {"layers.0.mlp.Wi": pytest.approx(1.0)}
    decoder("llama").save_pretrained(tmp_path / "llama")
    first = products_of(tmp_path / "llama").products[0]
    assert first.shares() == {f"model.layers.0.self_attn.{name}_proj": share for name, share in
                              (("q", 0.5), ("k", 0.25), ("v", 0.25))}  # fmt: skip


def test_last_blocks_go_on_with_a_token_of_each_text(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "bert")
    by_text = [product.by_text for product in products_of(tmp_path / "bert", pooling="cls").products]
    assert by_text == [False] * 9 + [True] * 3
    assert not any(product.by_text for product in products_of(tmp_path / "bert", pooling="mean").products)
    encoder("bert", "BertForSequenceClassification").save_pretrained(tmp_path / "head")
    assert sum(product.by_text for product in products_of(tmp_path / "head").products) == 3
    decoder("llama").save_pretrained(tmp_path / "llama")
    query, stored, *behind = products_of(tmp_path / "llama").products[8:]
    assert query.by_text
    assert not stored.by_text
    assert stored.shape.out_features == (24, 24)
    assert len(behind) == 3
    assert all(product.by_text for product in behind)


def test_models_that_the_engine_does_not_run_are_refused(tmp_path):
    encoder("bert").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", model_type="t5")
    with pytest.raises(ValueError, match="models of model_type 't5', only .*bert"):
        products_of(tmp_path)
    change_json(tmp_path / "config.json", model_type="bert", num_hidden_layers=4)
    with pytest.raises(ValueError, match="the weight files lack 'encoder.layer.3"):
        products_of(tmp_path)
    (tmp_path / "sparsekit.json").write_text("{}")
    with pytest.raises(ValueError, match="must be a folder of transformers, got one of sparsekit.save"):
        products_of(tmp_path)


def test_calls_are_cut_as_the_core_cuts_them():
    product = Product((Factor("a", 4),), 8, by_text=False)
    last = Product((Factor("b", 4),), 8, by_text=True)
    encodes, decodes = (ModelProducts((product, last), decodes=decodes) for decodes in (False, True))
    assert [counts for _, counts in encodes.of_call(Call(16, 128), 2)] == [{512: 4}, {4: 4}]
    assert [counts for _, counts in encodes.of_call(Call(3, 100), 1)] == [{200: 1, 100: 1}, {2: 1, 1: 1}]
    assert [counts for _, counts in encodes.of_call(Call(2, 300), 1)] == [{300: 2}, {1: 2}]
    assert [counts for _, counts in decodes.of_call(Call(1, 600), 1)] == [{256: 2, 88: 1}, {1: 1}]
    assert [counts for _, counts in decodes.of_call(Call(4, 1, past=128), 1)] == [{4: 1}, {4: 1}]
    with pytest.raises(ValueError, match="at least one text"):
        Call(0, 5)


def test_a_thread_has_as_many_tokens_as_in_the_core():
    text = (Path(__file__).parents[2] / "csrc" / "model" / "workspace.h").read_text()
    assert re.findall(r"kGroupTokens = (\d+);", text) == [str(THREAD_TOKENS)]
