"""Verbs of the engine: texts come in by lines, vectors go out as .npy."""

import io

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


def test_compile(folder, tmp_path):
    out = tmp_path / "encoder.bin"
    arguments = ["--out", str(out), "--dtype", "int8", "--embeddings", "int8", "--pooling", "cls"]
    result = CliRunner().invoke(app, ["compile", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    assert "wrote" in result.stdout
    assert out.read_bytes() == compile_model(folder, dtype="int8", embeddings="int8", pooling="cls").tobytes()
    found = np.load(io.BytesIO(embed(out, "--tokenizer", folder / "tokenizer.json").stdout_bytes))
    assert found.shape == (3, 36)
