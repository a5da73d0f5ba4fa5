"""Unsupported models and options are refused with a clear error, before weights are read."""

import json

import numpy as np
import pytest
import safetensors.numpy
from tiny_encoders import change_json, encoder

from sparsekit import finalize, prune
from sparsekit.engine import compile_model


@pytest.fixture
def folder(tmp_path):
    encoder("bert").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "deberta"}, "'deberta', only bert, .*sparsekit.load"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key', only 'absolute'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"hidden_act": "mish"}, "hidden_act='mish', only gelu"),
        ({"hidden_act": 3}, "hidden_act=3"),
        ({"model_type": "electra", "embedding_size": 18}, "lack 'embeddings_project.weight'"),
        ({"model_type": "electra"}, "lack 'embeddings_project.weight'"),
        ({"model_type": "electra", "embedding_size": "18"}, "embedding_size of config.json must be a number from 1"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized with another library"),
        ({"num_attention_heads": 5}, "hidden size that its heads divide, got 36 and 5"),
        ({"num_attention_heads": 0}, "num_attention_heads of config.json must be a number from 1"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers of config.json must be a number"),
        ({"num_hidden_layers": None}, "num_hidden_layers of config.json must be a number"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
        ({"num_hidden_layers": 2}, "models of 2 layers, as config.json says, with tensors like 'encoder.layer.2"),
        ({"num_hidden_layers": 4}, "lack 'encoder.layer.3"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers, the weight files hold .* tensors"),
        (
            {"model_type": "distilbert", "dim": 36, "n_heads": 3, "n_layers": 3},
            "with tensors like 'embeddings.token_type",
        ),
    ],
)
def test_configurations(changes, match, folder):
    change_json(folder / "config.json", **changes)
    with pytest.raises(ValueError, match=match):
        compile_model(folder)


def change_arrays(folder, change):
    path = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda arrays: arrays.pop("embeddings.LayerNorm.bias"), "lack 'embeddings.LayerNorm.bias'"),
        (lambda arrays: arrays.pop("embeddings.word_embeddings.weight"), "one tensor .*got 0"),
        (lambda arrays: arrays.update({"x.embeddings.word_embeddings.weight": np.ones((2, 2), np.float32)}), "got 2"),
        (lambda arrays: arrays.update({"encoder.scale": np.ones(2, np.float32)}), "tensors like 'encoder.scale'"),
        (
            lambda arrays: arrays.update({"embeddings.LayerNorm.bias": np.ones(36, np.int32)}),
            "floats, got int32",
        ),
        (lambda arrays: arrays.update({"embeddings.LayerNorm.bias": np.ones((6, 6), np.float32)}), "one dimension"),
        (lambda arrays: arrays.update({"embeddings.word_embeddings.weight": np.ones(6, np.float32)}), "two dimensions"),
    ],
)
def test_weights(change, match, folder):
    change_arrays(folder, change)
    with pytest.raises(ValueError, match=match):
        compile_model(folder)


def test_a_folder_with_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model.safetensors; write it with transformers"):
        compile_model(folder)


def test_a_folder_with_masks(tmp_path):
    model = encoder("bert")
    prune(model, 0.5)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"parametrized weight, .*; call sparsekit.finalize\(model\) before saving"):
        compile_model(tmp_path)
    finalize(model).save_pretrained(tmp_path)
    compile_model(tmp_path)


STEPS = ["Transformer", "Pooling", "Normalize"]


def write_modules(folder, kinds=STEPS, paths=("", "1_Pooling", "2_Normalize"), **pooling):
    steps = [
        {"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in zip(kinds, paths, strict=False)
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"kinds": ["Transformer", "Dense", "Pooling"]}, "modules Transformer, Dense, Pooling, only"),
        ({"kinds": ["Pooling"]}, "modules Pooling, only"),
        ({"pooling_mode": "lasttoken"}, "pooling by lasttoken, only one of mean, cls, max"),
        ({"pooling_mode": ["mean", "cls"]}, "pooling by mean, cls"),
        ({"pooling_mode_weightedmean_tokens": True}, "pooling by weightedmean"),
        ({"include_prompt": False}, "include_prompt"),
        ({"paths": ("", "../1_Pooling", "2")}, "must name folders beside it"),
        ({"paths": ("", 3, "2")}, "must name folders beside it"),
    ],
)
def test_modules_of_sentence_transformers(arguments, match, folder):
    write_modules(folder)
    compile_model(folder)
    write_modules(folder, **arguments)
    with pytest.raises(ValueError, match=match):
        compile_model(folder)


def test_pooling_of_anything_but_the_last_hidden_states(folder):
    write_modules(folder)
    options = {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}}
    (folder / "sentence_bert_config.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match="pooling of 'pooler_output', only of last_hidden_state"):
        compile_model(folder)


def test_modules_that_are_links(folder, tmp_path_factory):
    write_modules(folder)
    outside = tmp_path_factory.mktemp("outside")
    (folder / "1_Pooling" / "config.json").rename(outside / "config.json")
    (folder / "1_Pooling").rmdir()
    (folder / "1_Pooling").symlink_to(outside)
    with pytest.raises(ValueError, match="link out of the folder"):
        compile_model(folder)
    (folder / "modules.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold a list"):
        compile_model(folder)
