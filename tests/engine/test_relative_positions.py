"""Disentangled attention (DeBERTa-v2 and v3): scores of tokens for the distance to each other."""

import numpy as np
import pytest
import torch
import transformers
from test_engine_families import assert_same
from test_positions import LENGTHS, LONG, assert_same_at_all_lengths, change_arrays
from tiny_encoders import assert_close, change_json, encoder, hidden_states, sequences
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from sparsekit import convert, prune, save
from sparsekit.bench.minilm import minilm_folder
from sparsekit.distillation import drop_layers
from sparsekit.engine import Encoder, compile_model
from sparsekit.engine.positions import distance_rows
from sparsekit.pruning import prune_heads, prune_neurons

LAYER = "encoder.layer.1.attention.self"


@pytest.mark.parametrize("tokens", [1, 2, 9, 700])
@pytest.mark.parametrize(
    ("buckets", "farthest"), [(256, 512), (8, 45), (8, 310), (2, 7), (3, 20), (33, 100), (64, 40), (16, 12), (0, 512)]
)
def test_rows_are_those_of_transformers(buckets, farthest, tokens):
    span = buckets or farthest
    states = torch.zeros(1, tokens, 1)
    relative = build_relative_position(states, states, buckets or -1, farthest)[0].numpy()
    expected = np.clip(relative + span, 0, 2 * span - 1)
    found = distance_rows(tokens, span, buckets, farthest)
    assert found.shape == (2 * tokens - 1,)
    queries, keys = np.mgrid[:tokens, :tokens]
    np.testing.assert_array_equal(found[queries - keys + tokens - 1], expected)


@pytest.mark.usefixtures("isa")
def test_all_lengths_on_every_instruction_set(tmp_path):
    model = encoder("deberta-v2", **LONG)
    model.save_pretrained(tmp_path)
    assert_same_at_all_lengths(tmp_path, model)


@pytest.mark.parametrize(
    "changes",
    [
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]},
        {"pos_att_type": "P2C | c2p"},
        {"share_att_key": True},
        {"share_att_key": True, "pos_att_type": ["p2c"]},
        {"share_att_key": True, "pos_att_type": ["c2p"], "position_buckets": -1},
        {"position_buckets": -1},
        {"position_buckets": -1, "max_relative_positions": 20},
        {"position_buckets": 64, "max_relative_positions": 100},
        {"position_buckets": 256, "max_relative_positions": 512},
        {"position_buckets": 16, "max_relative_positions": 12},
        {"norm_rel_ebd": "none"},
        {"position_biased_input": True},
        {"type_vocab_size": 2},
        {"type_vocab_size": 2, "position_biased_input": True, "embedding_size": 20},
        {"embedding_size": 50, "share_att_key": True},
        {"embedding_size": 36},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
        {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_options(changes, tmp_path):
    model = encoder("deberta-v2", **LONG, **changes)
    model.save_pretrained(tmp_path)
    assert_same_at_all_lengths(tmp_path, model)


def test_sizes_of_a_small_model_of_version_3(tmp_path):
    """Heads and positions of microsoft/deberta-v3-small, fewer layers and hidden features."""
    shape = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 2, "position_buckets": 256}
    model = encoder("deberta-v2", **shape, max_position_embeddings=512, share_att_key=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
    model.save_pretrained(tmp_path)
    found = Encoder(tmp_path)
    assert found.max_tokens == 512
    ids = sequences((512, 1, 64, 300))
    for one, states in zip(ids, found.run(ids), strict=True):
        assert_close(states, hidden_states(model, one))


def test_token_types(tmp_path):
    model = encoder("deberta-v2", type_vocab_size=3)
    model.save_pretrained(tmp_path)
    ids = sequences((9, 4))
    types = [[0] * 5 + [1] * 4, [2, 0, 1, 0]]
    for one, kinds, states in zip(ids, types, Encoder(tmp_path).run(ids, types), strict=True):
        assert_close(states, hidden_states(model, one, kinds))


def test_padding_changes_nothing(tmp_path):
    model = encoder("deberta-v2", **LONG)
    model.save_pretrained(tmp_path)
    ids = [one for one in sequences(LENGTHS) if one]
    longest = max(map(len, ids))
    padded = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
    with torch.inference_mode():
        expected = model(input_ids=padded, attention_mask=mask)[0].numpy()
    for states, row in zip(Encoder(tmp_path).run(ids), expected, strict=True):
        assert_close(states, row[: len(states)])


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-4), ("int8", 0.03)])
@pytest.mark.parametrize("share_att_key", [True, False])
def test_sparse_layers_at_all_lengths(dtype, relative, share_att_key, tmp_path):
    model = encoder("deberta-v2", **LONG, share_att_key=share_att_key)
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, dtype=dtype)
    save(model, tmp_path / "model")
    assert_same_at_all_lengths(tmp_path / "model", model, relative)


def test_types_of_dense_weights(tmp_path):
    model = encoder("deberta-v2")
    model.save_pretrained(tmp_path)
    for dtype in ("bfloat16", "float16", "int8"):
        assert_same(tmp_path, model, relative=0.08, dtype=dtype, embeddings="int8")


@pytest.mark.parametrize("activation", ["gelu", "tanh", "relu"])
def test_activation_functions_of_the_pooler(activation, tmp_path):
    model = encoder("deberta-v2", "DebertaV2ForSequenceClassification", pooler_hidden_act=activation)
    model.save_pretrained(tmp_path)
    ids = sequences((1, 7, 33, 2, 5, 40, 12))
    for one, logits in zip(ids, Encoder(tmp_path).logits(ids), strict=True):
        with torch.inference_mode():
            assert_close(logits, model(input_ids=torch.tensor([one])).logits[0].numpy())


def test_ranks_pairs_of_texts_whose_token_types_the_model_does_without(tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    sizes = {"vocab_size": len(tokenizer), "num_labels": 1}
    model = encoder("deberta-v2", "DebertaV2ForSequenceClassification", **sizes)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    documents = ["the story of an actor", "No, bad, and long. " * 3, "film"]
    with torch.inference_mode():
        pairs = [tokenizer("a film", document, return_tensors="pt") for document in documents]
        expected = torch.cat([model(**pair).logits[:, 0] for pair in pairs]).sigmoid().numpy()
    assert Encoder(tmp_path).rank("a film", documents) == pytest.approx(expected, abs=1e-5)


def test_inside_of_a_model_with_another_head(tmp_path):
    model = encoder("deberta-v2", "DebertaV2ForMaskedLM")
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model.base_model)


def test_more_tokens_than_positions(tmp_path):
    model = encoder("deberta-v2")
    model.save_pretrained(tmp_path)
    found = Encoder(tmp_path)
    assert found.max_tokens == 45
    (states,) = found.run([[5] * 45])
    assert_close(states, hidden_states(model, [5] * 45))
    with pytest.raises(ValueError, match="from 0 to 45 tokens"):
        found.run([[5] * 46])


def test_position_embeddings_that_the_model_does_without(tmp_path):
    model = encoder("deberta-v2")
    model.save_pretrained(tmp_path)
    table = np.ones((45, 36), np.float32)
    change_arrays(tmp_path, lambda arrays: arrays.update({"embeddings.position_embeddings.weight": table}))
    assert_same(tmp_path, model)


def test_removed_heads_neurons_and_layers(tmp_path):
    model = encoder("deberta-v2")
    ids = torch.tensor(sequences((8, 8)))
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    prune_heads(model, heads={0: [1], 2: [0, 2]})
    prune_neurons(model, 0.3, batches, scope="global")
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model)
    shorter = drop_layers(model, [0, 2])
    prune(shorter, 0.7)
    convert(shorter, min_sparsity=0.5)
    save(shorter, tmp_path / "shorter")
    assert_same(tmp_path / "shorter", shorter)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"relative_attention": False}, "deberta-v2 with relative_attention=False, only True"),
        ({"relative_attention": None}, "relative_attention of config.json must be true or false"),
        ({"conv_kernel_size": 3}, "deberta-v2 with conv_kernel_size=3, only 0"),
        ({"pos_att_type": ["p2c", "p2p"]}, r"pos_att_type=\['p2c', 'p2p'\], only some of c2p, p2c"),
        ({"pos_att_type": []}, "pos_att_type"),
        ({"pos_att_type": None}, "pos_att_type=None"),
        ({"pos_att_type": [["c2p"]]}, "pos_att_type"),
        ({"pos_att_type": "none"}, "pos_att_type='none'"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd='batch_norm', only 'none', 'layer_norm'"),
        ({"norm_rel_ebd": ["layer_norm"]}, "norm_rel_ebd"),
        ({"norm_rel_ebd": "none"}, "tensors like 'encoder.LayerNorm.bias'"),
        ({"share_att_key": 1}, "share_att_key of config.json must be true or false"),
        ({"share_att_key": True}, r"tensors like 'encoder.layer.0.attention.self.pos_key_proj"),
        ({"pos_att_type": ["c2p"]}, r"tensors like 'encoder.layer.0.attention.self.pos_query_proj"),
        ({"position_buckets": 88}, "position_buckets of config.json must be less than .* got 88 and 45"),
        ({"position_buckets": 2, "max_relative_positions": 2}, "position_buckets of config.json must be less"),
        ({"position_buckets": "8"}, "position_buckets of config.json must be a number"),
        ({"position_buckets": 2**24}, "position_buckets of config.json must be a number"),
        ({"position_buckets": 10}, r"'encoder.rel_embeddings.weight' must have shape \[20, any\], got \[16, 36\]"),
        ({"max_relative_positions": 2.5}, "max_relative_positions of config.json must be a number"),
        ({"max_position_embeddings": 2**20}, "max_position_embeddings=1048576, only up to 131072"),
        ({"position_biased_input": True}, "lack 'embeddings.position_embeddings.weight'"),
        ({"position_biased_input": 0}, "position_biased_input of config.json must be true or false"),
        ({"type_vocab_size": 2}, "lack 'embeddings.token_type_embeddings.weight'"),
        ({"type_vocab_size": -1}, "type_vocab_size of config.json must be a number from 0"),
        ({"embedding_size": 20}, "lack 'embeddings.embed_proj.weight'"),
        ({"attention_head_size": 16}, "attention_head_size=16"),
    ],
)
def test_configurations(changes, match, tmp_path):
    encoder("deberta-v2").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(ValueError, match=match):
        compile_model(tmp_path)


def test_the_pooler_does_not_have_every_activation_function(tmp_path):
    encoder("deberta-v2", "DebertaV2ForSequenceClassification").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", pooler_hidden_act="mish")
    with pytest.raises(ValueError, match="pooler_hidden_act='mish', only gelu, .*tanh"):
        compile_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda arrays: arrays.pop("encoder.rel_embeddings.weight"), "lack 'encoder.rel_embeddings.weight'"),
        (lambda arrays: arrays.pop("encoder.LayerNorm.weight"), "lack 'encoder.LayerNorm.weight'"),
        (lambda arrays: arrays.pop(f"{LAYER}.pos_key_proj.weight"), "lack .*pos_key_proj.weight'"),
        (
            lambda arrays: arrays.update({"encoder.LayerNorm.weight": np.ones(35, np.float32)}),
            r"'encoder.LayerNorm.weight' must have shape \[36\], got \[35\]",
        ),
        (
            lambda arrays: arrays.update({f"{LAYER}.pos_query_proj.weight": np.ones((36, 35), np.float32)}),
            r"pos_query_proj.weight' must have shape \[any, 36\], got \[36, 35\]",
        ),
        (
            lambda arrays: arrays.update({f"{LAYER}.pos_query_proj.bias": np.ones(1, np.float32)}),
            r"pos_query_proj.bias' must have shape \[36\], got \[1\]",
        ),
        (
            lambda arrays: arrays.update({"encoder.conv.conv.weight": np.ones((36, 36, 3), np.float32)}),
            "tensors like 'encoder.conv.conv.weight'",
        ),
    ],
)
def test_damaged_weights(change, match, tmp_path):
    encoder("deberta-v2").save_pretrained(tmp_path)
    change_arrays(tmp_path, change)
    with pytest.raises(ValueError, match=match):
        compile_model(tmp_path)


def test_tables_of_another_width_than_a_layer_are_refused_on_opening(tmp_path):
    encoder("deberta-v2").save_pretrained(tmp_path)
    change_arrays(
        tmp_path,
        lambda arrays: arrays.update(
            {
                f"{LAYER}.pos_key_proj.weight": np.ones((35, 36), np.float32),
                f"{LAYER}.pos_key_proj.bias": np.ones(35, np.float32),
            }
        ),
    )
    with pytest.raises(ValueError, match="tensor 34 of layer 1 must be floats with as many columns"):
        Encoder(tmp_path)
