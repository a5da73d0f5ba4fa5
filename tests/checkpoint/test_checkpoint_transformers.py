"""Model folders of transformers models, which load without a given model."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from sparsekit import CSR, SparseLinear, convert, load, prune, save
from sparsekit.checkpoint.transformers.models import make_empty
from sparsekit.folder.model_folder import ModelFolder

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def bert(cls=transformers.BertForSequenceClassification, **arguments):
    torch.manual_seed(0)
    return cls(transformers.BertConfig(vocab_size=60, max_position_embeddings=40, **SIZES), **arguments).eval()


def sparse_bert(*arguments, **keywords):
    model = bert(*arguments, **keywords)
    prune(model, 0.8, targets=["re:.*encoder"])
    convert(model, targets=["re:.*encoder"], min_sparsity=0.5)
    return model


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logits(model) -> torch.Tensor:
    ids = torch.arange(18).reshape(2, 9)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]


def test_a_transformers_model_comes_back_from_its_folder_alone(tmp_path):
    model = sparse_bert()
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert not loaded.training
    assert isinstance(loaded.bert.encoder.layer[1].output.dense, SparseLinear)
    assert loaded.bert.encoder.layer[0].intermediate.dense.activation == "gelu"
    assert torch.equal(logits(loaded), logits(model))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["quantization_config"] == {"quant_method": "sparsekit", "format": 1}
    assert "sparsity_config" not in json.dumps(config)
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'sparsekit.load("path/to/this/folder")' in card
    assert "80.0% of the" in card
    save(loaded, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "model")


def test_no_weight_of_a_sparse_layer_is_made_dense(tmp_path, monkeypatch):
    model = sparse_bert()
    save(model, tmp_path / "model")

    def fail(*_):
        raise AssertionError("made dense")

    monkeypatch.setattr(CSR, "to_dense", fail)
    assert all(
        tensor.is_meta
        for tensor in make_empty(tmp_path / "model", ModelFolder(tmp_path / "model").manifest).parameters()
    )
    assert torch.equal(logits(load(tmp_path / "model")), logits(model))


def test_tied_weights_of_a_transformers_model_stay_tied(tmp_path):
    model = sparse_bert(transformers.BertForMaskedLM)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight
    assert torch.equal(logits(loaded), logits(model))


def test_an_encoder_without_its_pooler(tmp_path):
    model = sparse_bert(transformers.BertModel, add_pooling_layer=False)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.pooler is None
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_generates(tmp_path, dtype):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=60, max_position_embeddings=40, dtype=dtype, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.max_new_tokens = 5
    prune(model, 0.8, ignore=["lm_head"])
    convert(model, ignore=["lm_head"], min_sparsity=0.5)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.dtype == dtype
    assert loaded.generation_config.max_new_tokens == 5
    assert torch.equal(logits(loaded), logits(model))


def without_neurons(model, layer: int, kept: int) -> None:
    """Cut the feed-forward block of a layer down to its first neurons."""
    block = model.bert.encoder.layer[layer]
    first, second = block.intermediate.dense, block.output.dense
    first.weight = nn.Parameter(first.weight[:kept].detach().clone())
    first.bias = nn.Parameter(first.bias[:kept].detach().clone())
    second.weight = nn.Parameter(second.weight[:, :kept].detach().clone())
    first.out_features = second.in_features = kept


def test_layers_of_uneven_width(tmp_path):
    model = bert()
    without_neurons(model, 0, 40)
    without_neurons(model, 1, 17)
    prune(model, 0.8, targets=["bert.encoder.layer.1"])
    convert(model, targets=["bert.encoder.layer.1"], min_sparsity=0.5)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.bert.encoder.layer[0].intermediate.dense.weight.shape == (40, 32)
    assert loaded.bert.encoder.layer[0].output.dense.in_features == 40
    assert loaded.bert.encoder.layer[1].intermediate.dense.out_features == 17
    assert torch.equal(logits(loaded), logits(model))
    with pytest.raises(ValueError, match=r"must have shape \[64, 32\] for transformers to open it, got \[40, 32\]"):
        save(model, tmp_path / "dense", dense=True)
    assert not (tmp_path / "dense").exists()


def test_a_dense_folder_opens_without_the_library(tmp_path):
    model = sparse_bert()
    before = logits(model)
    save(model, tmp_path / "model", dense=True)
    assert "sparsekit.json" not in contents(tmp_path / "model")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(loaded), before)
    assert torch.equal(logits(model), before), "the model itself is as it was"
    with pytest.raises(ValueError, match="has no sparsekit.json"):
        load(tmp_path / "model")
