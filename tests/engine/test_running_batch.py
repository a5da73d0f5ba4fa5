"""Texts join and leave a running batch without changing what the others become."""

import numpy as np
import pytest
from test_generator import PROMPTS
from tiny_decoders import decoder, saved

from sparsekit import runtime
from sparsekit.engine import Generator

NEW = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(decoder("llama"), tmp_path_factory.mktemp("joining") / "model")


def prepared(generator, prompts, new=NEW):
    return [generator.prepare(generator.prompts.tokenize(one), max_new_tokens=new) for one in prompts]


def test_texts_join_and_leave_between_steps(folder):
    expected = [one.tokens for one in Generator(folder).complete(PROMPTS, max_new_tokens=NEW)]
    generator = Generator(folder)
    batch = generator.batch(most=3)
    texts = prepared(generator, PROMPTS)
    pieces = {id(text): "" for text in texts}
    for number, text in enumerate(texts):
        batch.add(text)
        stepped = batch.step()
        assert len(stepped) <= 3
        for other, piece in stepped:
            pieces[id(other)] += piece
        if number == 1:
            batch.drop(texts[0])
    while len(batch):
        for other, piece in batch.step():
            pieces[id(other)] += piece
    assert [text.completion.tokens for text in texts[1:]] == expected[1:]
    assert texts[0].completion.tokens == expected[0][:2]
    assert all(pieces[id(text)] == text.completion.text for text in texts[1:])


def test_a_text_that_waits_is_dropped(folder):
    generator = Generator(folder)
    batch = generator.batch(most=1)
    first, second = prepared(generator, PROMPTS[:2])
    batch.add(first)
    batch.add(second)
    batch.step()
    batch.drop(second)
    batch.drop(second)
    assert len(batch) == 1
    assert second.completion.tokens == []


class OneIsNaN(runtime.CompiledDecoder):
    """Gives the second of several texts logits that are NaN."""

    def run(self, ids, offsets, caches, **options):
        logits = super().run(ids, offsets, caches, **options)
        logits[1:2] = np.nan
        return logits


def test_nan_ends_the_text_that_has_it_and_no_other(folder, monkeypatch):
    expected = Generator(folder).complete(PROMPTS[:1], max_new_tokens=NEW)[0].tokens
    monkeypatch.setattr(runtime, "CompiledDecoder", OneIsNaN)
    generator = Generator(folder)
    batch = generator.batch()
    good, bad = prepared(generator, PROMPTS[:2])
    batch.add(good)
    batch.add(bad)
    while len(batch):
        batch.step()
    assert good.completion.tokens == expected
    assert (bad.completion.finish, bad.completion.tokens) == ("error", [])
    assert isinstance(bad.error, FloatingPointError)
    with pytest.raises(FloatingPointError):
        generator.generate(PROMPTS[:2], max_new_tokens=NEW)
