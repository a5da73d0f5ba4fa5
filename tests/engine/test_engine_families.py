"""Encoders of every family compute transformers' hidden states: plain, sharded, pruned, in other types."""

import numpy as np
import pytest
import safetensors.numpy
import torch
from tiny_encoders import ENCODERS, assert_close, encoder, hidden_states, sequences

from sparsekit import convert, finalize, fuse, prune, save
from sparsekit.distillation import drop_layers
from sparsekit.engine import Encoder
from sparsekit.engine.encoder_families import FAMILIES
from sparsekit.pruning import prune_heads, prune_neurons


def assert_same(folder, model, relative=1e-4, **arguments):
    """Sequences alone and in one call."""
    found = Encoder(folder, **arguments)
    ids = sequences()
    together = found.run(ids)
    for one, states in zip(ids, together, strict=True):
        expected = hidden_states(model, one)
        assert_close(states, expected, relative)
        assert_close(found.run([one])[0], expected, relative)


def test_every_family_has_a_tiny_encoder():
    assert set(ENCODERS) == set(FAMILIES)


@pytest.mark.parametrize("family", ENCODERS)
def test_hidden_states_are_those_of_transformers(family, tmp_path):
    model = encoder(family)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)


@pytest.mark.parametrize("embedding_size", [36, 50, 128])
def test_embeddings_narrower_and_wider_than_hidden_states(embedding_size, tmp_path):
    """128 is what the configuration may leave out."""
    model = encoder("electra", embedding_size=embedding_size)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model)
    assert_same(tmp_path, model, relative=0.1, dtype="int8", embeddings="int8")


@pytest.mark.parametrize(
    ("family", "model_class"),
    [
        ("bert", "BertForMaskedLM"),
        ("distilbert", "DistilBertForSequenceClassification"),
        ("roberta", "RobertaForMaskedLM"),
        ("electra", "ElectraForPreTraining"),
    ],
)
def test_the_encoder_inside_of_a_model_with_a_head_is_found(family, model_class, tmp_path):
    model = encoder(family, model_class)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model.base_model)


@pytest.mark.usefixtures("isa")
def test_token_types_on_every_instruction_set(tmp_path):
    model = encoder("bert")
    model.save_pretrained(tmp_path)
    ids = sequences((9, 4))
    types = [[0] * 5 + [1] * 4, [1, 0, 1, 0]]
    for one, kinds, states in zip(ids, types, Encoder(tmp_path).run(ids, types), strict=True):
        assert_close(states, hidden_states(model, one, kinds))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_read_as_float32(dtype, tmp_path):
    model = encoder("bert").to(dtype)
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model.float())


def test_several_weight_files(tmp_path):
    model = encoder("roberta")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert_same(tmp_path, model)


def test_names_of_checkpoints_from_tensorflow(tmp_path):
    model = encoder("bert")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    arrays = safetensors.numpy.load_file(path)
    for new, name in old.items():
        arrays = {key.replace(new, name): value for key, value in arrays.items()}
    arrays["embeddings.position_ids"] = np.arange(45)[None]
    safetensors.numpy.save_file(arrays, path)
    assert_same(tmp_path, model)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_types_of_dense_weights(dtype, tmp_path):
    model = encoder("bert")
    model.save_pretrained(tmp_path)
    assert_same(tmp_path, model, relative=0.05, dtype=dtype)
    assert_same(tmp_path, model, relative=0.05, dtype="int8", embeddings="int8")


def sparse(family, folder, dtype):
    model = encoder(family)
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, dtype=dtype)
    save(model, folder)
    return model


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize(("dtype", "relative"), [("float32", 1e-4), ("int8", 0.02)])
def test_sparse_folders(family, dtype, relative, tmp_path):
    """int8 kernels quantize inputs equally in both; differences before rounding can move a value by one step."""
    model = sparse(family, tmp_path / "model", dtype)
    assert_same(tmp_path / "model", model, relative)


def test_fused_models(tmp_path):
    model = encoder("bert")
    prune(model, 0.8)
    convert(model, min_sparsity=0.5)
    fuse(model)
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model)


def test_layers_that_stay_dense_but_are_stored_sparse(tmp_path):
    model = encoder("bert", "BertForMaskedLM", tie_word_embeddings=True)
    prune(model, 0.8)
    finalize(model)
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model.base_model)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_removed_heads_neurons_and_layers(family, tmp_path):
    model = encoder(family)
    ids = torch.tensor(sequences((8, 8)))
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    prune_heads(model, heads={0: [1]})
    prune_neurons(model, 0.3, batches, scope="global")
    save(model, tmp_path / "model")
    assert_same(tmp_path / "model", model)
    shorter = drop_layers(model, [1])
    prune(shorter, 0.7)
    convert(shorter, min_sparsity=0.5)
    save(shorter, tmp_path / "shorter")
    assert_same(tmp_path / "shorter", shorter)
