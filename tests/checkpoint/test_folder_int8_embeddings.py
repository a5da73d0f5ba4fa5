"""Folders with int8 word embeddings: `load` and transformers give the same vectors, or a clear error."""

import json

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny_encoders import bert_with_tokenizer, encoder, hidden_states, sequences
from torch import nn

from sparsekit import SparseLinear, convert, densify, load, prune, save, verify
from sparsekit.exporters import export_onnx
from sparsekit.nn import Int8Embedding

IDS = sequences((9,))[0]
TEXTS = ["a film", "the story of an actor"]


def small(family: str = "bert", model_class: str | None = None, dtype: torch.dtype = torch.float32, **changes):
    model = encoder(family, model_class, **changes)
    prune(model, 0.8, targets=["re:.*layer.0"])
    return convert(model.to(dtype), targets=["re:.*layer.0"], min_sparsity=0.5, embeddings="int8")


def same(one: nn.Module, other: nn.Module) -> bool:
    with torch.inference_mode():
        found = [model.eval()(input_ids=torch.tensor([IDS]))[0] for model in (one, other)]
    return torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", [5 * 10**9, 3000])
def test_the_model_comes_back_bit_for_bit(tmp_path, dtype, shard):
    model = small(dtype=dtype)
    save(model, tmp_path / "model", max_shard_size=shard)
    opened = transformers.AutoModel.from_pretrained(tmp_path / "model")
    loaded = load(tmp_path / "model")
    for again in (loaded, opened):
        table = again.get_input_embeddings()
        assert isinstance(table, Int8Embedding)
        assert table(torch.tensor(IDS)).dtype == table.output_dtype == dtype
        assert torch.equal(table.codes, model.get_input_embeddings().codes)
        assert torch.equal(table.scales, model.get_input_embeddings().scales)
        assert table.padding_idx == 0
    save(loaded, tmp_path / "again", max_shard_size=shard)
    opened.save_pretrained(tmp_path / "by_transformers", max_shard_size=shard)
    for folder in ("again", "by_transformers"):
        for path in (tmp_path / "model").iterdir():
            assert (tmp_path / folder / path.name).read_bytes() == path.read_bytes(), path.name
    assert same(loaded, model)
    assert same(opened, model)


def test_a_folder_says_what_it_holds_and_is_smaller(tmp_path):
    model = small()
    save(model, tmp_path / "model", verify_inputs={"input_ids": torch.tensor([IDS])})
    save(densify(load(tmp_path / "model")), tmp_path / "float32")
    manifest = json.loads((tmp_path / "model" / "sparsekit.json").read_text())
    assert manifest["embeddings"] == {"embeddings.word_embeddings": {"output_dtype": "float32"}}
    assert manifest["arrays"]["embeddings.word_embeddings.codes"]["dtype"] == "I8"
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("float32", "model")]
    assert sizes[0] - sizes[1] > 2.5 * 97 * 36
    card = (tmp_path / "model" / "README.md").read_text()
    assert "The 97 embeddings of 36 features in `embeddings.word_embeddings` are in int8" in card
    report = verify(tmp_path / "model")
    assert report.passed
    assert report.to_dict()["embeddings"] == {"embeddings.word_embeddings": [97, 36]}
    assert "codes and scales of embeddings embeddings.word_embeddings (97 x 36) are right" in str(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_opened_in_another_type(tmp_path, dtype):
    save(small(), tmp_path / "model")
    opened = transformers.AutoModel.from_pretrained(tmp_path / "model", dtype=dtype)
    expected = load(tmp_path / "model").get_input_embeddings()(torch.tensor(IDS)).to(dtype)
    found = opened.get_input_embeddings()
    assert torch.equal(found(torch.tensor(IDS)), expected)
    assert found.scales.dtype == torch.float32


def test_dense_folders_and_onnx_hold_the_values_that_the_model_computes_with(tmp_path):
    model = small()
    save(model, tmp_path / "dense", dense=True)
    assert not (tmp_path / "dense" / "sparsekit.json").exists()
    plain = transformers.AutoModel.from_pretrained(tmp_path / "dense")
    assert type(plain.get_input_embeddings()) is nn.Embedding
    expected = hidden_states(model, IDS)
    np.testing.assert_allclose(hidden_states(plain, IDS), expected, atol=1e-5)
    ids = torch.tensor([IDS, IDS])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    path = export_onnx(model, tmp_path / "onnx", inputs)
    onnxruntime = pytest.importorskip("onnxruntime")
    found = onnxruntime.InferenceSession(path).run(None, {name: one.numpy() for name, one in inputs.items()})[0]
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_sentence_transformers(tmp_path):
    plain = bert_with_tokenizer(tmp_path / "plain")
    model = SentenceTransformer(modules=[Transformer(str(plain)), Pooling(36, pooling_mode="mean")], device="cpu")
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8")
    expected = model.encode(TEXTS)
    save(model, tmp_path / "saved")
    model.save(str(tmp_path / "by_itself"))
    for name in ("saved", "by_itself"):
        again = SentenceTransformer(str(tmp_path / name), device="cpu")
        assert isinstance(again[0].auto_model.get_input_embeddings(), Int8Embedding)
        assert np.array_equal(again.encode(TEXTS), expected)
    model.append(nn.Sequential(Int8Embedding(4, 2)))
    with pytest.raises(ValueError, match="2.0 is a Int8Embedding and no part of a transformers model"):
        save(model, tmp_path / "saved")


def test_a_folder_whose_table_alone_is_compressed(tmp_path):
    model = convert(encoder("bert"), embeddings="int8", tokens=[4])
    assert not any(isinstance(module, SparseLinear) for module in model.modules())
    model.save_pretrained(tmp_path / "model")
    opened = transformers.AutoModel.from_pretrained(tmp_path / "model")
    assert same(opened, model)
    opened.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "sparsekit.json").exists()


def test_a_model_of_another_class_takes_the_table(tmp_path):
    model = small()
    save(model, tmp_path / "model")
    labelled = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert same(labelled.bert, model)
    save(labelled, tmp_path / "labelled")
    assert same(transformers.AutoModel.from_pretrained(tmp_path / "labelled"), model)
    with pytest.raises(ValueError, match=r"decoder.weight is tied to embeddings that the folder holds in int8"):
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model")


def test_a_head_that_was_untied(tmp_path):
    model = encoder("bert", "BertForMaskedLM", tie_word_embeddings=True)
    decoder = model.cls.predictions.decoder
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings="int8")
    save(model, tmp_path / "model")
    expected = hidden_states(model, IDS)
    opened = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    for again in (load(tmp_path / "model"), opened):
        assert (hidden_states(again, IDS) == expected).all()


class Tokens(nn.Module):
    """A table in two places, and a layer."""

    def __init__(self, rows: int = 50) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, 8)
        self.again = self.words
        self.out = nn.Linear(8, 4)

    def forward(self, ids):
        return self.out(self.words(ids) + self.again(ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_of_ones_own(tmp_path, dtype):
    torch.manual_seed(0)
    model = Tokens()
    prune(model, 0.8)
    convert(model.to(dtype), min_sparsity=0.5, embeddings="int8")
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", model=Tokens())
    ids = torch.tensor(IDS) % 50
    assert again.words is again.again
    assert torch.equal(again(ids), model(ids))
    assert torch.equal(load(tmp_path / "model", model=again)(ids), model(ids))
    with pytest.raises(ValueError, match=r"words.codes must be torch.int8 \[49, 8\] in this model.*\[50, 8\]"):
        load(tmp_path / "model", model=Tokens(49))
    with pytest.raises(ValueError, match="the folder has embeddings in int8 for 'words', where the model has nothing"):
        load(tmp_path / "model", model=nn.ModuleDict({"out": nn.Linear(8, 4)}))
    with pytest.raises(ValueError, match="a bare Int8Embedding has no name"):
        save(model.words, tmp_path / "model")
