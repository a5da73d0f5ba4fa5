"""Language models that compressed-tensors quantized, as folders that the engine and `load` open."""

import shutil

import numpy as np
import pytest
from quantized_models import LAYERS, quantize
from test_generator import NEW, PROMPTS, greedy, write_tokenizer
from tiny_decoders import decoder, logits, tokens

import sparsekit
from sparsekit import runtime
from sparsekit.engine import Generator, compile_model
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.importers import convert_compressed_tensors, read_weights


def quantized_folder(path, bits, group_size, shards=1, **changes):
    model = decoder("llama", hidden_size=160, intermediate_size=272, **changes)
    model.save_pretrained(path)
    write_tokenizer(path)
    quantize(path, bits, group_size, shards)
    return path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("bits", "group_size", "shards"), [(4, 128, 3), (4, 256, 1), (4, None, 1), (8, None, 2)]
)  # fmt: skip
def test_the_engine_and_transformers_write_the_same(tmp_path, bits, group_size, shards, tied):
    source = quantized_folder(tmp_path / "theirs", bits, group_size, shards, tie_word_embeddings=tied)
    out = tmp_path / "ours"
    convert_compressed_tensors(source, out, max_shard_size=50_000)
    folder = ModelFolder(out)
    assert len(folder.manifest.layers) == 3 * len(LAYERS)
    weights = read_weights(source)
    for layer, entry in folder.manifest.layers.items():
        assert entry.dtype == f"int{bits}"
        weight, expected = folder.weight(layer), weights[f"{layer}.weight"]
        assert weight.nnz == expected.count_nonzero()
        np.testing.assert_allclose(weight.to_dense(), expected.float().numpy(), rtol=2**-10)  # theirs are of 16 bits
    model = sparsekit.load(out)
    plain = decoder("llama", hidden_size=160, intermediate_size=272, tie_word_embeddings=tied)
    plain.load_state_dict(weights, strict=not tied)
    expected = logits(plain.eval(), tokens())
    error = np.linalg.norm(logits(model, tokens()) - expected)
    assert error <= 0.1 * np.linalg.norm(expected)  # inputs are rounded too
    texts = [greedy(model, text) for text in PROMPTS]
    found = [done.tokens for done in Generator(out).complete(PROMPTS, max_new_tokens=NEW)]
    # An input on the edge between two codes may be rounded either way, which decides where two tokens are as likely.
    assert sum(one == other for one, other in zip(found, texts, strict=True)) >= len(PROMPTS) - 1
    core = runtime.CompiledDecoder(compile_model(out))
    for written in texts:
        ids = np.array(written, np.int32)
        computed = core.run(ids, np.array([0, ids.size]), [core.make_cache(64)], all_tokens=True)
        expected = logits(model, written)
        assert np.linalg.norm(computed - expected) <= 0.03 * np.linalg.norm(expected)


def test_folders_that_are_refused(tmp_path):
    source = quantized_folder(tmp_path / "theirs", 4, 32)
    out = tmp_path / "ours"
    with pytest.raises(ValueError, match=r"layer 'model.layers.0.* multiple of 128 input features"):
        convert_compressed_tensors(source, out)
    assert list(tmp_path.iterdir()) == [source]
    with pytest.raises(ValueError, match="is the folder to convert"):
        convert_compressed_tensors(source, source)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        convert_compressed_tensors(tmp_path / "none", out)
    plain = tmp_path / "plain"
    decoder("llama").save_pretrained(plain)
    with pytest.raises(ValueError, match="must say how weights are quantized"):
        convert_compressed_tensors(plain, out)
    shutil.copytree(quantized_folder(tmp_path / "rows", 4, None), tmp_path / "linked")
    (tmp_path / "linked" / "tokenizer.json").unlink()
    (tmp_path / "linked" / "tokenizer.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="is a link out of the folder"):
        convert_compressed_tensors(tmp_path / "linked", out)
    assert not out.exists()
