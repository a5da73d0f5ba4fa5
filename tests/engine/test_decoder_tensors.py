"""Tensors and options of a compiled decoder: a numpy reference computes transformers' logits from them."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from numpy_decoder import NumpyDecoder, aligned, entries_of, options_of
from tiny_decoders import DECODERS, decoder, logits, tokens
from tiny_encoders import change_json

from sparsekit import convert, densify, prune, runtime, save
from sparsekit.engine import compile_model
from sparsekit.engine.decoder_families import DECODER_FAMILIES
from sparsekit.pruning import prune_heads, prune_neurons

IDS = tokens()


def compiled(folder, dtype="float32", embeddings=None) -> bytes:
    return compile_model(folder, dtype=dtype, embeddings=embeddings).tobytes()


def assert_same(folder, model, relative=1e-4, ids=IDS, **arguments):
    expected = logits(model, ids)
    found = NumpyDecoder(compiled(folder, **arguments)).logits(ids)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


def test_every_family_has_a_tiny_decoder():
    assert set(DECODERS) == set(DECODER_FAMILIES)


@pytest.mark.parametrize("family", DECODERS)
def test_logits_are_those_of_transformers(family, tmp_path):
    model = decoder(family)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)


@pytest.mark.parametrize("family", DECODERS)
def test_head_tied_or_not_and_types_of_weights(family, tmp_path):
    for tied in (True, False):
        model = decoder(family, tie_word_embeddings=tied)
        model.save_pretrained(tmp_path / str(tied))
        assert_same(tmp_path / str(tied), model)
        entries = entries_of(compiled(tmp_path / str(tied), embeddings="int8"))
        assert ((-1, "head") in entries) == (not tied)
        assert entries[-1, "word_embeddings"][0] == ("packed" if tied else "scaled_rows")


@pytest.mark.parametrize("family", DECODERS)
def test_int8_weights_are_the_nearest_codes(family, tmp_path):
    decoder(family).save_pretrained(tmp_path)
    exact, rounded = (NumpyDecoder(compiled(tmp_path, *dtypes)) for dtypes in ((), ("int8", "int8")))
    assert exact.tensors.keys() == rounded.tensors.keys()
    for key, values in exact.tensors.items():
        linear = values.ndim == 2 and key[1] not in ("position_embeddings", "rotary", "local_rotary")
        step = np.abs(values).max(axis=-1, keepdims=True) / 127 if linear else 0
        assert (np.abs(rounded.tensors[key] - values) <= 0.5001 * step).all(), key


@pytest.mark.parametrize("family", DECODERS)
def test_int4_weights_are_the_nearest_codes(family, tmp_path):
    for tied in (True, False):
        decoder(family, tie_word_embeddings=tied).save_pretrained(tmp_path / str(tied))
        exact, rounded = (NumpyDecoder(compiled(tmp_path / str(tied), *types)) for types in ((), ("int4", "int4")))
        for key, values in exact.tensors.items():
            linear = values.ndim == 2 and key[1] not in ("position_embeddings", "rotary", "local_rotary")
            step = np.abs(values).max(axis=-1, keepdims=True) / 7 if linear else 0  # a row is one group here
            assert (np.abs(rounded.tensors[key] - values) <= 0.502 * step).all(), key


def test_a_tied_table_is_packed_dense_in_its_type(tmp_path):
    decoder("smollm3").save_pretrained(tmp_path)
    for embeddings, dtype in ((None, "float32"), ("float32", "float32"), ("int8", "int8"), ("int4", "int4")):
        _, shape, data = entries_of(compiled(tmp_path, "int8", embeddings))[-1, "word_embeddings"]
        info = runtime.packed_info(aligned(data))
        assert (info.layout, info.dtype, info.out_features, info.in_features) == ("dense", dtype, *shape)


def test_the_bare_model_with_a_tied_head(tmp_path):
    model = decoder("qwen2")
    model.model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)
    change_json(tmp_path / "config.json", tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lack 'lm_head.weight'"):
        compiled(tmp_path)


def test_options_of_the_header(tmp_path):
    decoder("gemma2").save_pretrained(tmp_path / "gemma2")
    decoder("gpt_neox").save_pretrained(tmp_path / "gpt_neox")
    gemma, neox = (options_of(compiled(tmp_path / name)) for name in ("gemma2", "gpt_neox"))
    whole = ("layers", "head_dim", "activation", "norm", "parallel")
    assert [gemma[name] for name in whole] == [3, 10, runtime.ACTIVATIONS["gelu_tanh"], 1, 0]
    assert [neox[name] for name in whole] == [3, 12, runtime.ACTIVATIONS["gelu"], 0, 1]
    floats = ("norm_eps", "attention_scale", "attention_cap", "logit_cap", "embedding_scale")
    np.testing.assert_allclose([gemma[name] for name in floats], [1e-6, 7**-0.5, 1.5, 2.0, 48**0.5], rtol=1e-6)
    np.testing.assert_allclose([neox[name] for name in floats], [1e-5, 12**-0.5, 0, 0, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "windows", "kinds"),
    [
        ("llama", None, [1, 1, 1]),
        ("mistral", [5, 5, 5], [1, 1, 1]),
        ("phi3", [5, 5, 5], [1, 1, 1]),
        ("qwen2", [0, 5, 5], [1, 1, 1]),
        ("smollm3", [0, 5, 0], [1, 0, 1]),
        ("gemma2", [5, 0, 5], [1, 1, 1]),
        ("gemma3_text", [5, 0, 5], [2, 1, 2]),
        ("gpt2", None, None),
    ],
)
def test_windows_and_angles_of_layers(family, windows, kinds, tmp_path):
    """With and without the lists that newer versions of transformers write."""
    decoder(family).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    shorter = {"layer_types": None, "no_rope_layers": None}
    if family == "gemma3_text":
        shorter["sliding_window_pattern"] = 2
    for changes in ({}, shorter):
        (tmp_path / "config.json").write_text(json.dumps({**stored, **changes}))
        entries = entries_of(compiled(tmp_path))
        for role, expected in (("windows", windows), ("rotary_kinds", kinds)):
            found = entries.get((-1, role))
            assert (None if found is None else np.frombuffer(found[2], np.float32).tolist()) == expected
        assert ((-1, "local_rotary") in entries) == (family == "gemma3_text")


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("llama", {"rope_type": "linear", "factor": 3.0}),
        ("llama", {"rope_type": "dynamic", "factor": 3.0}),
        ("llama", LLAMA3),
        ("qwen3", YARN),
        ("qwen3", {**YARN, "beta_fast": 4, "beta_slow": 2, "mscale": 1.5, "mscale_all_dim": 0.5}),
        ("qwen3", {**YARN, "attention_factor": 1.3}),
        ("gpt_neox", {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
    ],
)
def test_scaled_angles(family, parameters, tmp_path):
    model = decoder(family, rope_parameters={"rope_theta": 500.0, **parameters})
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)
    old = {key: value for key, value in parameters.items() if key != "partial_rotary_factor"}
    base = {"rotary_emb_base": 500, "rotary_pct": 0.5} if family == "gpt_neox" else {"rope_theta": 500}
    change_json(tmp_path / "config.json", rope_parameters=None, rope_scaling=old, **base)
    assert_same(tmp_path, model)


def test_longrope_up_to_the_original_length(tmp_path):
    parameters = {"rope_theta": 500.0, "rope_type": "longrope", "partial_rotary_factor": 0.5}
    parameters |= {"short_factor": [1.0, 1.5, 2.0], "long_factor": [3.0, 4.0, 5.0]}
    model = decoder("phi3", rope_parameters=parameters, original_max_position_embeddings=30)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)
    assert entries_of(compiled(tmp_path))[-1, "rotary"][1] == (30, 6)


def test_gemma3_with_a_scaled_global_base(tmp_path):
    parameters = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 700.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
    }
    model = decoder("gemma3_text", rope_parameters=parameters)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)
    old = {"rope_theta": 700.0, "rope_local_base_freq": 30.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    change_json(tmp_path / "config.json", rope_parameters=None, **old)
    assert_same(tmp_path, model)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
        ("gpt2", {"scale_attn_weights": False, "activation_function": "relu"}),
        ("qwen3", {"attention_bias": True, "num_key_value_heads": 4}),
        ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True}),
        ("mistral", {"sliding_window": None}),
        ("phi3", {"num_key_value_heads": 1, "partial_rotary_factor": 1.0}),
    ],
)
def test_options_of_families(family, changes, tmp_path):
    model = decoder(family, **changes)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_sparse_folders(family, dtype, tmp_path):
    """Layers that are joined in the model are split; int8 layers of PyTorch would quantize their inputs too."""
    model = decoder(family)
    prune(model, 0.7)
    convert(model, min_sparsity=0.5, dtype=dtype)
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", densify(model))


def test_removed_heads_and_neurons(tmp_path):
    model = decoder("gpt2")
    ids = torch.tensor([IDS, IDS[::-1]])
    prune_heads(model, heads={0: [1]})
    prune_neurons(model, 0.3, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], scope="global")
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model)


def test_buffers_of_older_checkpoints(tmp_path):
    model = decoder("gpt2")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    arrays["transformer.h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.uint8)
    arrays["transformer.h.2.attn.masked_bias"] = np.float32([-1e4])
    safetensors.numpy.save_file(arrays, path)
    assert_same(tmp_path, model)


def test_half_precision_files_are_read_as_float32(tmp_path):
    decoder("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    arguments = {"dtype": torch.float32, "attn_implementation": "eager"}
    assert_same(tmp_path, transformers.LlamaForCausalLM.from_pretrained(tmp_path, **arguments))


REFUSED = [
    ("llama", {"model_type": "mixtral"}, "model_type 'mixtral', only .*sparsekit.load"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification, of llama only"),
    ("llama", {"architectures": "LlamaForCausalLM"}, "must be a list of names"),
    ("llama", {"hidden_act": "mish"}, "hidden_act='mish', only gelu"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantized with another library"),
    ("llama", {"layer_types": ["sliding_attention"] * 3}, "llama with layer_types"),
    ("llama", {"is_causal": False}, "is_causal=False, only True"),
    ("llama", {"num_key_value_heads": 3}, "key-value heads divide, got 4 and 3"),
    ("llama", {"num_attention_heads": 5, "num_key_value_heads": 5}, "12 rows for each key-value head"),
    ("llama", {"num_hidden_layers": 2}, "models of 2 layers, .* tensors like 'model.layers.2"),
    ("llama", {"num_hidden_layers": 4}, "lack 'model.layers.3"),
    ("llama", {"num_hidden_layers": 10**6}, "1000000 layers, the weight files hold .* tensors"),
    ("llama", {"num_hidden_layers": None}, "num_hidden_layers of config.json must be a number"),
    ("llama", {"attention_bias": False}, "tensors like 'model.layers.0.self_attn.k_proj.bias'"),
    ("qwen3", {"attention_bias": True}, "lack 'model.layers.0.self_attn.q_proj.bias'"),
    ("llama", {"vocab_size": 96}, "must have 96 rows"),
    ("llama", {"hidden_size": 44, "head_dim": 12}, "must have 44 columns"),
    ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps"),
    ("llama", {"tie_word_embeddings": True}, "differs from the word embeddings"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings of config.json must be true or false"),
    ("llama", {"rope_parameters": {"rope_type": "proportional"}}, "rope_type='proportional', only default"),
    ("llama", {"rope_parameters": {"mrope_section": [1]}}, "rope_parameters with mrope_section"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "llama with partial_rotary_factor=0.5"),
    ("llama", {"rope_parameters": {"rope_theta": "big"}}, "rope_theta of config.json must be a number"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor of rope_parameters"),
    ("llama", {"rope_parameters": {**YARN, "truncate": False}}, "truncate=False"),
    ("llama", {"rope_parameters": [1]}, "rope_parameters of config.json must be an object"),
    ("phi3", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}, "list of 3 numbers"),
    ("mistral", {"head_dim": 7, "num_attention_heads": 8, "num_key_value_heads": 4}, "even number of features"),
    ("mistral", {"sliding_window": 0}, "sliding_window of config.json must be a number from 1"),
    ("qwen2", {"use_sliding_window": False}, "sliding_attention without a sliding_window"),
    ("qwen2", {"layer_types": ["full_attention"]}, "must be a list of 3 types"),
    ("qwen2", {"layer_types": ["chunked_attention"] * 3}, "'chunked_attention', only"),
    ("smollm3", {"no_rope_layers": [1]}, "must be a list of 3 flags"),
    ("gemma2", {"sliding_window": None, "layer_types": None}, "without a sliding_window"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ("gemma2", {"attn_logit_softcapping": -1}, "attn_logit_softcapping of config.json must be a number"),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 3.0}}, "only those of full_attention and sliding_attention"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
    ("gpt_neox", {"head_dim": 10}, "gpt_neox with head_dim=10"),
]


@pytest.mark.parametrize(("family", "changes", "match"), REFUSED)
def test_what_is_not_computed_is_refused(family, changes, match, tmp_path):
    decoder(family).save_pretrained(tmp_path)
    change_json(tmp_path / "config.json", **changes)
    with pytest.raises(ValueError, match=match):
        compiled(tmp_path)


def test_unknown_tensors_are_refused(tmp_path):
    decoder("llama").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({**arrays, "model.layers.0.self_attn.sinks": np.ones(4, np.float32)}, path)
    with pytest.raises(ValueError, match=r"tensors like 'model.layers.0.self_attn.sinks'"):
        compiled(tmp_path)
