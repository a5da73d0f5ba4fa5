"""Int8 word embeddings: the engine uses the stored codes, and computes the same vectors as PyTorch."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_encoders import ENCODERS, assert_close, encoder, hidden_states, sequences
from torch import nn

from sparsekit import convert, finalize, prune, save
from sparsekit.bench.film_reviews import load_splits
from sparsekit.bench.minilm import minilm_folder
from sparsekit.engine import Encoder, compile_model
from sparsekit.engine.compiled_file import ROLES
from sparsekit.nn import Int8Embedding

IDS = sequences((33,))[0]


def compressed(family: str, folder, embeddings: str = "int8") -> nn.Module:
    model = encoder(family)
    prune(model, 0.8)
    convert(model, min_sparsity=0.5, embeddings=embeddings)
    save(model, folder)
    return model


def word_embeddings(compiled: np.ndarray) -> bytes:
    """The bytes of the table in a compiled model, by docs/compiled-model.md."""
    tensors = int(compiled[12:16].view("<u4")[0])
    entries = np.frombuffer(compiled, np.dtype("<u4"), offset=128, count=12 * tensors).reshape(-1, 12)
    (entry,) = entries[(entries[:, 1] == ROLES["word_embeddings"]) & (entries[:, 0] == 0xFFFFFFFF)]
    begin, size = entry[8:].view("<u8")
    return compiled[int(begin) : int(begin + size)].tobytes()


@pytest.mark.parametrize("family", ENCODERS)
def test_codes_and_scales_are_taken_over_as_they_are(family, tmp_path):
    model = compressed(family, tmp_path / "model")
    table = model.get_input_embeddings()
    table.codes[5] = 3  # rows that no rounding of float32 values would give
    table.scales[5] = 0.25
    save(model, tmp_path / "model")
    stored = table.scales.numpy().tobytes() + table.codes.numpy().tobytes()
    for arguments in ({}, {"embeddings": "int8"}):
        compiled = compile_model(tmp_path / "model", **arguments)
        assert word_embeddings(compiled) == stored
    exact = (table.codes * table.scales[:, None]).numpy().tobytes()
    assert word_embeddings(compile_model(tmp_path / "model", embeddings="float32")) == exact
    expected = hidden_states(model, IDS)
    for arguments in ({}, {"embeddings": "int8"}, {"embeddings": "float32"}):
        assert_close(Encoder(tmp_path / "model", **arguments).run([IDS])[0], expected)


def test_the_engine_rounds_float_tables_as_convert_does(tmp_path):
    compressed("bert", tmp_path / "int8")
    compressed("bert", tmp_path / "float32", "float32")
    assert np.array_equal(compile_model(tmp_path / "int8"), compile_model(tmp_path / "float32", embeddings="int8"))
    exact = Encoder(tmp_path / "int8").run([IDS])[0]
    assert np.array_equal(Encoder(tmp_path / "float32", embeddings="int8").run([IDS])[0], exact)
    assert np.array_equal(Encoder(tmp_path / "int8", embeddings="float32").run([IDS])[0], exact)


@pytest.mark.usefixtures("isa")
def test_rows_are_equal_to_those_of_pytorch_on_every_instruction_set(tmp_path):
    """Codes times scales, rounded once to float32, in both."""
    model = compressed("bert", tmp_path / "model")
    table = model.get_input_embeddings()
    rows = Encoder(tmp_path / "model", embeddings="float32").run([IDS])[0]
    assert np.array_equal(Encoder(tmp_path / "model").run([IDS])[0], rows)
    values = torch.tensor(table.codes[IDS].float().numpy() * table.scales[IDS, None].numpy())
    assert torch.equal(table(torch.tensor(IDS)), values)


def test_a_table_that_is_not_finite(tmp_path):
    model = encoder("bert")
    model.get_input_embeddings().weight.data[3, 4] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'embeddings.word_embeddings.weight' must be finite .*; keep float32"):
        compile_model(tmp_path, embeddings="int8")


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1) / norms


@pytest.mark.slow
def test_sentence_vectors_of_minilm_hardly_move(tmp_path):
    texts = [row["text"] for row in load_splits().test[:256]]
    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    dense = model.encode(texts).astype(np.float64)
    finalize(model)
    convert(model, embeddings="int8", tokens=[16])
    assert isinstance(model[0].auto_model.get_input_embeddings(), Int8Embedding)
    found = model.encode(texts).astype(np.float64)
    assert cosines(found, dense).min() >= 0.9999
    save(model, tmp_path / "model")
    by_engine = Encoder(tmp_path / "model").encode(texts)
    assert_close(by_engine, found.astype(np.float32))
    assert cosines(by_engine.astype(np.float64), dense).min() >= 0.9999
