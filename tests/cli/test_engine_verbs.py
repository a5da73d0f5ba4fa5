"""Commands of the engine: a text per line in; vectors as .npy, labels and scores per line out."""

import io
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from tiny_encoders import bert_with_tokenizer
from typer.testing import CliRunner

from sparsekit.cli import app
from sparsekit.engine import Encoder, compile_model

TEXTS = ["a film", "", "a story\u2028of an actor"]
LINES = "a film\n\na story\u2028of an actor\n"


def embed(*arguments, lines=LINES):
    result = CliRunner().invoke(app, ["embed", *map(str, arguments)], input=lines.encode())
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_with_tokenizer(tmp_path_factory.mktemp("verbs") / "model")


def test_embed(folder, tmp_path):
    expected = Encoder(folder, pooling="mean").encode(TEXTS)
    assert np.array_equal(np.load(io.BytesIO(embed(folder, "--pooling", "mean").stdout_bytes)), expected)
    out = tmp_path / "vectors"
    embed(folder, "--pooling", "mean", "--out", out, "--batch-tokens", 4)
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-4, atol=1e-6)
    assert np.load(io.BytesIO(embed(folder, "--pooling", "mean", lines="").stdout_bytes)).shape == (0, 36)


def test_embed_with_a_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = np.load(io.BytesIO(embed(folder, "--pooling", "mean", "--no-cache").stdout_bytes))
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        assert np.array_equal(np.load(io.BytesIO(embed(folder, "--pooling", "mean", "--cache").stdout_bytes)), expected)
    assert len(list((tmp_path / "sparsekit" / "compiled").iterdir())) == 1


def test_compile(folder, tmp_path):
    out = tmp_path / "encoder.bin"
    arguments = ["--out", str(out), "--dtype", "int8", "--embeddings", "int8", "--pooling", "cls"]
    result = CliRunner().invoke(app, ["compile", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    assert re.search(r"wrote .*, [\d.]+ MB, (8|9|1\d)\.\d\d bits a weight", result.stdout)
    assert out.read_bytes() == compile_model(folder, dtype="int8", embeddings="int8", pooling="cls").tobytes()
    CliRunner().invoke(app, ["compile", str(folder), "--out", str(out), "--pooling", "cls", "--target", "neon"])
    assert out.read_bytes() == compile_model(folder, pooling="cls", target="neon").tobytes()
    found = np.load(io.BytesIO(embed(out, "--tokenizer", folder / "tokenizer.json").stdout_bytes))
    assert found.shape == (3, 36)


def lines_of(*arguments, lines):
    result = CliRunner().invoke(app, [*map(str, arguments)], input=lines.encode())
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_classify(tmp_path):
    folder = bert_with_tokenizer(tmp_path / "model", "BertForSequenceClassification", num_labels=3)
    found = [json.loads(line) for line in lines_of("classify", folder, lines="a film\ngood\n")]
    assert [one["label"] for one in found] == [one.label for one in Encoder(folder).classify(["a film", "good"])]
    pair = json.loads(lines_of("classify", folder, "--pairs", lines="a film\tgood\n")[0])
    assert pair["score"] == pytest.approx(Encoder(folder).classify([("a film", "good")])[0].score)
    result = CliRunner().invoke(app, ["classify", str(folder), "--pairs"], input="a film\n")
    assert "line 1 must hold two texts with a tab between" in str(result.exception)


def test_classify_tokens(tmp_path):
    folder = bert_with_tokenizer(tmp_path / "model", "BertForTokenClassification", num_labels=3)
    found = json.loads(lines_of("classify", folder, "--aggregation", "max", lines="a film of actors\n")[0])
    expected = Encoder(folder).classify_tokens(["a film of actors"], aggregation="max")[0]
    assert [(one["start"], one["label"]) for one in found] == [(one.start, one.label) for one in expected]
    assert asdict(expected[0]).keys() == found[0].keys()


def test_rank(tmp_path):
    folder = bert_with_tokenizer(tmp_path / "model", "BertForSequenceClassification", num_labels=1)
    documents = ["a film", "good", "a story of an actor"]
    scores = Encoder(folder).rank("film?", documents)
    found = lines_of("rank", folder, "--query", "film?", lines="\n".join(documents) + "\n")
    assert [line.split("\t")[1] for line in found] == [documents[i] for i in (-scores).argsort()]
    assert float(found[0].split("\t")[0]) == pytest.approx(scores.max(), rel=1e-5)
