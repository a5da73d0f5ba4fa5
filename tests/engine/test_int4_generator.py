"""Language models with int4 weights: logits near those of the same weights in float, one token like many."""

import json

import numpy as np
import pytest
import torch
from numpy_decoder import NumpyDecoder
from test_generator import NEW, PROMPTS
from tiny_decoders import DECODERS, WORDS, decoder, tokens, write_tokenizer
from tiny_encoders import encoder

from sparsekit import runtime
from sparsekit.engine import Encoder, Generator, compile_model

IDS = tokens()


@pytest.fixture
def folder(tmp_path):
    decoder("llama", hidden_size=160, intermediate_size=144).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    return tmp_path


@pytest.mark.parametrize("family", DECODERS)
def test_logits_are_near_those_of_the_rounded_weights(family, tmp_path, isa):
    decoder(family).save_pretrained(tmp_path)
    compiled = compile_model(tmp_path, dtype="int4", embeddings="int4")
    expected = NumpyDecoder(compiled.tobytes()).logits(IDS)
    core = runtime.CompiledDecoder(compiled)
    found = core.run(np.array(IDS, np.int32), np.array([0, len(IDS)]), [core.make_cache(64)], all_tokens=True)
    # Inputs of every layer are rounded to a 127th of the largest in their group.
    assert np.linalg.norm(found - expected) <= 0.1 * np.linalg.norm(expected)


def test_batches_caches_and_single_steps_write_the_same(folder):
    generator = Generator(folder, dtype="int4", embeddings="int4")
    together = generator.complete(PROMPTS, max_new_tokens=NEW)
    for prompt, done in zip(PROMPTS, together, strict=True):
        alone = Generator(folder, dtype="int4", embeddings="int4").complete([prompt], max_new_tokens=NEW)
        assert alone[0].tokens == done.tokens
    again = generator.complete(PROMPTS[::-1], max_new_tokens=NEW)[::-1]
    assert [done.tokens for done in again] == [done.tokens for done in together]


def test_one_token_has_the_logits_that_it_has_among_others(folder):
    core = runtime.CompiledDecoder(compile_model(folder, dtype="int4", embeddings="int4"))
    ids = np.array([WORDS[word] for word in PROMPTS[-1].split()], np.int32)
    offsets, whole = np.array([0, ids.size]), core.make_cache(64)
    expected = core.run(ids, offsets, [whole], all_tokens=True)
    cache = core.make_cache(64)
    found = np.concatenate([core.run(ids[i : i + 1], np.array([0, 1]), [cache]) for i in range(ids.size)])
    assert np.abs(found - expected).max() <= 2e-2 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_a_half_of_int8(folder):
    sizes = {dtype: compile_model(folder, dtype=dtype, embeddings=dtype).nbytes for dtype in ("int8", "int4")}
    layers = sum(
        layer.weight.numel()
        for name, layer in decoder("llama", hidden_size=160, intermediate_size=144).named_modules()
        if isinstance(layer, torch.nn.Linear) and name != "lm_head"
    )
    assert sizes["int8"] - sizes["int4"] > 0.4 * layers


def test_encoders_have_int4_layers(tmp_path):
    model = encoder("bert").eval()
    model.save_pretrained(tmp_path)
    ids = [[5, 6, 7], list(range(3, 20))]
    exact, rounded = (Encoder(tmp_path, dtype=dtype).run(ids) for dtype in ("float32", "int4"))
    for one, other in zip(exact, rounded, strict=True):
        assert np.linalg.norm(one - other) <= 0.35 * np.linalg.norm(one)  # weights of a random model, to the nearest
    alone = Encoder(tmp_path, dtype="int4").run(ids[:1])
    assert np.abs(alone[0] - rounded[0]).max() <= 2e-2 * np.abs(rounded[0]).max()


def test_encoders_keep_int8_embeddings(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="embeddings of encoders are float32 or int8, got 'int4'"):
        compile_model(tmp_path, embeddings="int4")
    with pytest.raises(ValueError, match="embeddings must be None or one of float32, int8, int4, got 'int2'"):
        compile_model(tmp_path, embeddings="int2")
