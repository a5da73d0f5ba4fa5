"""Perplexity of the engine: that of PyTorch, for every type of weight."""

import json

import numpy as np
import pytest
import torch
import transformers
from tiny_decoders import decoder
from typer.testing import CliRunner

from sparsekit import convert, evaluate, prune, save
from sparsekit.cli import app
from sparsekit.engine import Generator, compile_model
from sparsekit.engine.perplexity import cross_entropies, windows
from sparsekit.formats.dtypes import WEIGHT_DTYPES


def write_tokenizer(folder):
    """Letters are tokens; one of them ends texts."""
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<s>"}
    letters = transformers.PreTrainedTokenizerFast(tokenizer_object=_letters(), **special)
    letters.save_pretrained(folder)


def _letters():
    import tokenizers

    words = {"<s>": 0, "</s>": 1, **{chr(97 + i): i + 2 for i in range(26)}}
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<s>"))
    found.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    return found


@pytest.fixture(scope="module")
def model():
    return decoder("llama", max_position_embeddings=256).eval()


@pytest.fixture
def data(tmp_path):
    numbers = np.random.default_rng(0).integers(97, 123, (40, 30))
    rows = [json.dumps({"text": "".join(map(chr, row))}) for row in numbers]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows))
    return tmp_path / "texts.jsonl"


@pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
def test_the_same_as_pytorch_for_every_type(model, data, tmp_path, dtype):
    pruned = decoder("llama", max_position_embeddings=256).eval()
    prune(pruned, 0.5, ignore=["lm_head"])
    convert(pruned, dtype=dtype, min_sparsity=0.3, ignore=["lm_head"])
    save(pruned, tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    expected = evaluate(tmp_path / "model", data, "language")["perplexity"]
    texts = [json.loads(line)["text"] for line in data.read_text().splitlines()]
    assert Generator(tmp_path / "model").perplexity(texts) == pytest.approx(expected, rel=1e-3)


def test_the_command_scores_folders_and_files(model, data, tmp_path):
    model.save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    compile_model(tmp_path / "model", tmp_path / "model.bin")
    arguments = ["--data", str(data), "--task", "language"]
    shown = [
        CliRunner().invoke(app, ["evaluate", *where, *arguments]).output.splitlines()[-1]
        for where in (
            [str(tmp_path / "model")],
            [str(tmp_path / "model"), "--engine"],
            [str(tmp_path / "model.bin"), "--tokenizer", str(tmp_path / "model" / "tokenizer.json")],
        )
    ]
    assert shown[1] == shown[2]
    assert shown[0][:16] == shown[1][:16]
    refused = CliRunner().invoke(app, ["evaluate", str(tmp_path / "model.bin"), "--data", str(data)])
    assert "is no model folder" in str(refused.exception)
    refused = CliRunner().invoke(app, ["evaluate", str(tmp_path / "model"), "--data", str(data), "--engine"])
    assert refused.exit_code == 2
    refused = CliRunner().invoke(app, ["evaluate", str(tmp_path / "model"), "--data", str(data), "--dtype", "int8"])
    assert refused.exit_code == 2


def test_cross_entropies_are_those_of_torch():
    logits = np.random.default_rng(0).standard_normal((7, 11)).astype(np.float32) * 30
    following = np.arange(7, dtype=np.int32)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(following).long(), reduction="none"
    )
    np.testing.assert_allclose(cross_entropies(logits, following), expected.numpy(), rtol=1e-6)


def test_windows_that_cannot_be(model, data, tmp_path):
    with pytest.raises(ValueError, match="the texts have 3 tokens, fewer than one window of 4"):
        windows([[1, 2]], 0, 4)
    model.save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    generator = Generator(tmp_path / "model")
    for window in (1, 257):
        with pytest.raises(ValueError, match=f"window must be from 2 to the 256 tokens of the context, got {window}"):
            generator.perplexity(["abc"], window=window)
