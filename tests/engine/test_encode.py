"""`encode`: tokens, pooling, truncation and order as in sentence-transformers; torch is not imported."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from tiny_encoders import assert_close, bert_with_tokenizer, change_json, encoder, hidden_states

from sparsekit import convert, engine, prune, save
from sparsekit.bench.minilm import minilm_folder
from sparsekit.engine import Encoder, compile_model

TEXTS = [
    "A film.",
    "",
    "Größe, naïve café — 你好 world!",
    "the story of an actor " * 3,
    "A film.",
    "good",
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return bert_with_tokenizer(tmp_path_factory.mktemp("plain") / "model")


def sentence_transformer(plain, pooling, *more, **arguments):
    encoder = Transformer(str(plain), max_seq_length=30)
    return SentenceTransformer(modules=[encoder, Pooling(36, pooling_mode=pooling), *more], device="cpu", **arguments)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("more", [(), (Normalize(),)], ids=["", "normalize"])
def test_vectors_are_those_of_sentence_transformers(pooling, more, plain, tmp_path):
    model = sentence_transformer(plain, pooling, *more)
    model.save(str(tmp_path / "model"))
    expected = model.encode(TEXTS)
    found = Encoder(tmp_path / "model")
    assert_close(found.encode(TEXTS), expected)
    for batch_tokens in (1, 7, 10**6):
        assert_close(found.encode(TEXTS, batch_tokens=batch_tokens), expected)
    assert_close(found.encode(TEXTS[2]), expected[2])
    assert_close(found.encode(iter(TEXTS)), expected)
    assert found.encode([]).shape == (0, 36)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_sparse_folders_of_sentence_transformers(dtype, plain, tmp_path):
    model = sentence_transformer(plain, "mean", Normalize(), prompts={"q": "a film: "}, default_prompt_name="q")
    prune(model, 0.8)
    convert(model[0].auto_model, min_sparsity=0.5, dtype=dtype)
    save(model, tmp_path / "model")
    found = Encoder(tmp_path / "model").encode(TEXTS)
    assert_close(found, model.encode(TEXTS), 1e-4 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.Identity(), torch.nn.GELU()])
def test_dense_modules(activation, plain, tmp_path):
    dense = Dense(36, 13, activation_function=activation)
    model = sentence_transformer(plain, "mean", dense, Normalize())
    model.save(str(tmp_path / "model"))
    assert_close(Encoder(tmp_path / "model").encode(TEXTS), model.encode(TEXTS))
    change_json(tmp_path / "model" / "2_Dense" / "config.json", activation_function="mine.Own")
    with pytest.raises(ValueError, match=r"activation_function='mine\.Own'"):
        Encoder(tmp_path / "model")
    change_json(tmp_path / "model" / "2_Dense" / "config.json", activation_function="torch.nn.modules.linear.Identity")
    change_json(tmp_path / "model" / "2_Dense" / "config.json", module_output_name="other")
    with pytest.raises(ValueError, match="module_output_name='other'"):
        Encoder(tmp_path / "model")


def test_prompts(plain, tmp_path):
    model = sentence_transformer(plain, "mean", prompts={"q": "a film: ", "d": "story "}, default_prompt_name="q")
    model.save(str(tmp_path / "model"))
    found = Encoder(tmp_path / "model")
    assert_close(found.encode(TEXTS), model.encode(TEXTS))
    assert_close(found.encode(TEXTS, prompt_name="d"), model.encode(TEXTS, prompt_name="d"))
    assert_close(found.encode(TEXTS, prompt="good "), model.encode(TEXTS, prompt="good "))
    with pytest.raises(ValueError, match="no prompt 'x', only 'd'"):
        found.encode(TEXTS, prompt_name="x")


def test_minilm():
    texts = [*TEXTS, "word " * 400]
    expected = SentenceTransformer(str(minilm_folder()), device="cpu").encode(texts)
    with pytest.warns(UserWarning, match="more than 256 tokens"):
        found = Encoder(minilm_folder()).encode(texts)
    assert_close(found, expected)


def test_long_texts_are_truncated_with_a_warning_once(plain, tmp_path):
    model = sentence_transformer(plain, "mean")
    model.save(str(tmp_path / "model"))
    found = Encoder(tmp_path / "model")
    texts = ["good", "a film " * 50]
    with pytest.warns(UserWarning, match=r"1 text of 2 had more than 30 tokens"):
        vectors = found.encode(texts)
    assert_close(vectors, model.encode(texts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(found.encode(texts), vectors)


def test_without_a_limit_the_position_table_is_one(plain):
    with pytest.warns(UserWarning, match=r"more than 45 tokens"):
        assert Encoder(plain, pooling="cls").encode("a film " * 50).shape == (36,)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_plain_folder_pools_as_it_is_told(pooling, plain):
    found = Encoder(plain, pooling=pooling)
    states = found.run([[101, 2143, 102]])[0]
    expected = {"mean": states.mean(0), "cls": states[0], "max": states.max(0)}[pooling]
    assert_close(found.encode("film"), expected)
    with pytest.raises(ValueError, match=r"pooling= \(--pooling\), one of 'mean', 'cls', 'max'"):
        Encoder(plain).encode("film")


def test_lower_case_and_older_pooling_options(plain, tmp_path):
    model = sentence_transformer(plain, "mean")
    model.save(str(tmp_path / "model"))
    flags = {"word_embedding_dimension": 36, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text(str(flags).replace("'", '"').lower())
    (tmp_path / "model" / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": true}')
    expected = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(["A B c d e f g"])
    with pytest.warns(UserWarning, match="more than 5 tokens"):
        assert_close(Encoder(tmp_path / "model").encode(["A B c d e f g"]), expected)


def test_texts_must_be_str(plain):
    found = Encoder(plain, pooling="mean")
    with pytest.raises(TypeError, match="texts must be str, got int"):
        found.encode(["good", 3])
    with pytest.raises(ValueError, match="batch_tokens must be at least 1"):
        found.encode("good", batch_tokens=0)


def test_a_folder_without_a_tokenizer(tmp_path):
    model = encoder("bert")
    model.save_pretrained(tmp_path)
    found = Encoder(tmp_path, pooling="mean")
    assert_close(found.run([[5, 6]])[0], hidden_states(model, [5, 6]))
    with pytest.raises(ValueError, match=r"there is no .*tokenizer\.json"):
        found.encode("good")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import numpy
import sparsekit.engine
found = sparsekit.engine.Encoder(sys.argv[1], pooling="mean", threads=1)
numpy.save(sys.argv[2], found.encode(["a film", "good"]))
sparsekit.engine.compile_model(sys.argv[1], sys.argv[3])
"""


def test_neither_torch_nor_transformers_is_imported(plain, tmp_path):
    arguments = [str(plain), str(tmp_path / "vectors.npy"), str(tmp_path / "model.bin")]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], check=True)
    expected = Encoder(plain, pooling="mean").encode(["a film", "good"])
    assert_close(np.load(tmp_path / "vectors.npy"), expected)
    assert (tmp_path / "model.bin").read_bytes() == compile_model(plain).tobytes()


def test_threads_are_torch_s_when_it_is_loaded(plain):
    with pytest.raises(RuntimeError, match="torch is loaded"):
        Encoder(plain, threads=2)


def test_unknown_options(plain, tmp_path):
    for arguments in ({"dtype": "int2"}, {"embeddings": "float16"}, {"pooling": "last"}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
            compile_model(plain, tmp_path / "model.bin", **arguments)
    with pytest.raises(FileNotFoundError, match="no folder"):
        Encoder(tmp_path / "nowhere")
    assert not (tmp_path / "model.bin").exists()
    change_json(bert_with_tokenizer(tmp_path / "other") / "tokenizer.json", model=3)
    with pytest.raises(ValueError, match="is no tokenizer"):
        Encoder(tmp_path / "other", pooling="mean").encode("good")


def test_tokenizing_and_computing_apart_give_the_same(plain):
    found = Encoder(plain, pooling="mean")
    texts = [*TEXTS, "a film " * 50]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokens = found.tokenize(texts)
    assert [one.truncated for one in tokens] == [False] * len(TEXTS) + [True]
    assert_close(found.outputs(tokens[:-1]), found.encode(TEXTS))
    assert tokens[-1].ids.size == found.max_tokens
    with pytest.raises(ValueError, match="pooling="):
        Encoder(plain).outputs(tokens)


def test_every_public_name_is_there():
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
