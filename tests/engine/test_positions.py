"""Positions inside of attention: biases by distance (MPNet), rotary embeddings and windows (ModernBERT)."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from test_engine_families import assert_same
from tiny_encoders import assert_close, change_json, encoder, hidden_states, sequences
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from sparsekit import convert, prune, save
from sparsekit.distillation import drop_layers
from sparsekit.engine import Encoder, compile_model
from sparsekit.engine.positions import distance_biases, rotary_frequencies, rotary_table
from sparsekit.pruning import prune_heads, prune_neurons

#: Shorter and longer than windows and tiles, one token, none, and what goes through the layers on its own.
LENGTHS = (1, 7, 0, 129, 300, 2, 40)
LONG = {"max_position_embeddings": 310}
MIXED = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]


def assert_same_at_all_lengths(folder, model, relative=1e-4, **arguments):
    found = Encoder(folder, **arguments)
    ids = sequences(LENGTHS)
    for batch in (ids, ids[:1], ids[3:4], ids * 3):
        for one, states in zip(batch, found.run(batch), strict=True):
            assert states.shape[0] == len(one)
            if one:
                assert_close(states, hidden_states(model, one), relative)


def test_biases_are_those_of_transformers():
    buckets = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    for tokens in (1, 2, 9, 512):
        distances = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]  # j - i
        expected = buckets[MPNetEncoder.relative_position_bucket(distances).numpy()]
        found = distance_biases(buckets, tokens)
        assert found.shape == (3, 2 * tokens - 1)
        queries, keys = np.mgrid[:tokens, :tokens]
        np.testing.assert_array_equal(found[:, queries - keys + tokens - 1].transpose(1, 2, 0), expected)


def test_angles_grow_with_the_position():
    table = rotary_table(rotary_frequencies(100.0, 4), 5)
    angles = np.arange(5)[:, None] / np.array([1.0, 10.0])
    np.testing.assert_allclose(table, np.concatenate([np.cos(angles), np.sin(angles)], 1), rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
def test_all_lengths_on_every_instruction_set(family, tmp_path):
    model = encoder(family, **LONG)
    model.save_pretrained(tmp_path)
    assert_same_at_all_lengths(tmp_path, model)


@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-4), ("int8", 0.03)])
def test_sparse_layers_at_all_lengths(family, dtype, relative, tmp_path):
    model = encoder(family, **LONG)
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, dtype=dtype)
    save(model, tmp_path / "model")
    assert_same_at_all_lengths(tmp_path / "model", model, relative)


@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
def test_types_of_dense_weights(family, tmp_path):
    model = encoder(family)
    model.save_pretrained(tmp_path)
    for dtype in ("bfloat16", "float16", "int8"):
        assert_same(tmp_path, model, relative=0.08, dtype=dtype, embeddings="int8")


@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
def test_more_tokens_than_positions(family, tmp_path):
    model = encoder(family)
    model.save_pretrained(tmp_path)
    found = Encoder(tmp_path)
    assert found.max_tokens == model.config.max_position_embeddings - (2 if family == "mpnet" else 0)
    (states,) = found.run([[5] * found.max_tokens])
    assert_close(states, hidden_states(model, [5] * found.max_tokens))
    with pytest.raises(ValueError, match=f"from 0 to {found.max_tokens} tokens"):
        found.run([[5] * (found.max_tokens + 1)])
    with pytest.raises(ValueError, match="no token types"):
        found.run([[5, 6]], [[0, 0]])


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": MIXED},
        {"layer_types": ["full_attention"] * 4},
        {"layer_types": ["sliding_attention"] * 4, "local_attention": 2},
        {"local_attention": 3},
        {"local_attention": 1000},
        {"norm_bias": True, "attention_bias": True, "mlp_bias": True},
        {"hidden_activation": "silu", "norm_eps": 1e-3},
        {"num_hidden_layers": 1},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
            }
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_options_of_modernbert(changes, tmp_path):
    model = encoder("modernbert", **LONG, **changes)
    model.save_pretrained(tmp_path)
    assert_same_at_all_lengths(tmp_path, model)


@pytest.mark.parametrize("every", [None, 2])
def test_older_configurations_say_the_same(every, tmp_path):
    types = ["sliding_attention" if layer % (every or 3) else "full_attention" for layer in range(4)]
    thetas = {
        "full_attention": 160000.0 if every is None else 700.0,
        "sliding_attention": 10000.0 if every is None else 30,
    }
    rope = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()}
    encoder("modernbert", layer_types=types, rope_parameters=rope).save_pretrained(tmp_path)
    expected = compile_model(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("layer_types") == types
    assert config.pop("rope_parameters") == rope
    if every is not None:
        config |= {"global_attn_every_n_layers": every, "global_rope_theta": 700, "local_rope_theta": 30.0}
    path.write_text(json.dumps(config))
    assert np.array_equal(compile_model(tmp_path), expected)


def test_modernbert_inside_of_a_model_with_a_head(tmp_path):
    model = encoder("modernbert", "ModernBertForMaskedLM")
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model.base_model)


@pytest.mark.parametrize("family", ["mpnet", "modernbert"])
def test_removed_heads_neurons_and_layers(family, tmp_path):
    model = encoder(family)
    ids = torch.tensor(sequences((8, 8)))
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    prune_heads(model, heads={layer: [1] for layer in range(model.config.num_hidden_layers)})
    prune_neurons(model, 0.3, batches, scope="global")
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model)
    shorter = drop_layers(model, [0, 2])
    prune(shorter, 0.7)
    convert(shorter, min_sparsity=0.5)
    save(shorter, tmp_path / "shorter")
    assert_same(tmp_path / "shorter", shorter)


def test_sparse_layers_in_blocks_that_are_cut(tmp_path):
    """Rows of a part need not be whole blocks of 4x1: 50 hidden features are not."""
    model = encoder("modernbert")
    prune(model, 0.8, mask_structure="4x1")
    convert(model, min_sparsity=0.5)
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model)


def change_arrays(folder, change):
    path = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)


def without_a_head(arrays):
    for name in "qkv":
        for part in ("weight", "bias"):
            key = f"encoder.layer.1.attention.attn.{name}.{part}"
            arrays[key] = arrays[key][:32]
    key = "encoder.layer.1.attention.attn.o.weight"
    arrays[key] = np.ascontiguousarray(arrays[key][:, :32])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without_a_head, "layers with fewer heads than others .*'encoder.layer.1.attention.attn.q' has 2, .* of 3"),
        (
            lambda arrays: arrays.update({"encoder.relative_attention_bias.weight": np.ones((16, 3), np.float32)}),
            "must have 32 rows, got 16",
        ),
        (
            lambda arrays: arrays.update({"embeddings.position_embeddings.weight": np.ones((2, 48), np.float32)}),
            "more than 2 rows",
        ),
        (lambda arrays: arrays.pop("encoder.relative_attention_bias.weight"), "lack 'encoder.relative_attention_bias"),
    ],
)
def test_damaged_weights_of_mpnet(change, match, tmp_path):
    encoder("mpnet").save_pretrained(tmp_path)
    change_arrays(tmp_path, change)
    with pytest.raises(ValueError, match=match):
        compile_model(tmp_path)


def test_buckets_of_mpnet(tmp_path):
    encoder("mpnet").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", relative_attention_num_buckets=64)
    with pytest.raises(ValueError, match="relative_attention_num_buckets=64, only 32"):
        compile_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layer_types": ["full_attention"] * 3}, "list of 4 types"),
        ({"layer_types": "full_attention"}, "list of 4 types"),
        ({"layer_types": ["chunked_attention"] * 4}, "layers of type 'chunked_attention', only full_attention"),
        ({"layer_types": [[]] * 4}, "layers of type"),
        ({"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers of config.json"),
        ({"local_attention": 1}, "local_attention of config.json must be a number from 2"),
        ({"local_attention": 2**24}, "local_attention of config.json"),
        ({"sliding_window": 7}, "sliding_window=7"),
        ({"max_position_embeddings": 2**20}, "max_position_embeddings=1048576, only up to 131072"),
        ({"max_position_embeddings": 0}, "max_position_embeddings of config.json"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_theta": 3.0}}, "rope_parameters=.*, only those of"),
        ({"rope_parameters": 3}, "rope_parameters=3"),
        ({"rope_parameters": {"full_attention": 3}}, "must hold objects"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type='yarn' .* only 'default'"),
        ({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "partial_rotary_factor=0.5"),
        ({"rope_parameters": {"sliding_attention": {"rope_theta": "10"}}}, "rope_theta of config.json"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e13}}}, "rope_theta of config.json"),
        ({"norm_bias": 1}, "norm_bias of config.json must be true or false"),
        ({"norm_bias": True}, "lack 'embeddings.norm.bias'"),
        ({"hidden_activation": "mish"}, "hidden_activation='mish'"),
        ({"norm_eps": 0}, "norm_eps of config.json"),
        ({"head_dim": 8}, "head_dim=8"),
        ({"num_attention_heads": 4}, "even number of features to be rotated, got 9"),
        ({"hidden_size": 72, "num_attention_heads": 6}, "must have 72 columns, as config.json says, got 36"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ],
)
def test_configurations_of_modernbert(changes, match, tmp_path):
    encoder("modernbert").save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(ValueError, match=match):
        compile_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda arrays: arrays.update({"layers.0.attn_norm.weight": np.ones(36, np.float32)}),
            "tensors like 'layers.0.attn_norm.weight'",
        ),
        (
            lambda arrays: arrays.update({"layers.1.attn.Wqkv.bias": np.ones(108, np.float32)}),
            "tensors like 'layers.1.attn.Wqkv.bias'",
        ),
        (
            lambda arrays: arrays.update({"layers.1.attn.Wqkv.weight": np.ones((107, 36), np.float32)}),
            "must have 3 equal parts, got 107 rows",
        ),
        (lambda arrays: arrays.update({"layers.1.mlp.Wi.weight": np.ones(6, np.float32)}), "two dimensions"),
        (lambda arrays: arrays.pop("final_norm.weight"), "lack 'final_norm.weight'"),
    ],
)
def test_damaged_weights_of_modernbert(change, match, tmp_path):
    encoder("modernbert").save_pretrained(tmp_path)
    change_arrays(tmp_path, change)
    with pytest.raises(ValueError, match=match):
        compile_model(tmp_path)
