"""Streamed text: whole characters, equal to decoding at once when concatenated, ends before stop strings."""

import functools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sparsekit.engine.text_stream import TextStream

TEXTS = [
    "Hello, world! It's 3 o'clock.",
    "Größe, naïve café",
    "你好世界",
    "👩‍👩‍👧 family 🇫🇷 😀😀",
    "a  b\n\n c",
    "ไทย נְקֻדּוֹת",
    "",
]
ALPHABET = "ab c\n.ßé世👩\u200d👧🇫\u0301\ufffd"


@functools.cache
def byte_level():
    """Byte-level BPE as GPT-2 has it, with a special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<end>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@functools.cache
def byte_fallback():
    """BPE with spaces as ▁ and bytes as tokens, as Llama 2 has it."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abc.", "ab", "▁a"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    model = models.BPE(
        vocabulary, [("a", "b"), ("▁", "a")], byte_fallback=True, fuse_unk=True, **{"unk_token": "<unk>"}
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


@functools.cache
def word_piece():
    """Parts of words, whose decoder puts spaces between words and none before punctuation."""
    vocabulary = {token: number for number, token in enumerate(["[UNK]", "a", "##b", "##c", "b", "c", ".", "ß", "世"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, **{"unk_token": "[UNK]"}))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


TOKENIZERS = [byte_level, byte_fallback, word_piece]


def pieces(tokenizer, ids, stop=()):
    stream = TextStream(tokenizer, stop)
    return [*map(stream.push, ids), stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_pieces_joined_are_the_decoded_text(tokenizer, text):
    ids = tokenizer().encode(text).ids
    found = pieces(tokenizer(), ids)
    assert "".join(found) == tokenizer().decode(ids)
    assert not any("\ufffd" in piece for piece in found)
    if tokenizer is not word_piece:
        assert "".join(found) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(text=st.text(ALPHABET, max_size=30), specials=st.lists(st.integers(0, 60), max_size=3))
def test_pieces_of_any_text_joined_are_the_decoded_text(tokenizer, text, specials):
    ids = tokenizer().encode(text).ids
    end = tokenizer().token_to_id("<end>")
    for place in specials if end is not None else ():
        ids.insert(place, end)  # between the bytes of a character, too
    assert "".join(pieces(tokenizer(), ids)) == tokenizer().decode(ids)


@given(st.lists(st.integers(0, 279), max_size=40))
@example([])
def test_any_tokens_of_bytes_are_decoded_as_at_once(ids):
    tokenizer = byte_level()
    ids = [token for token in ids if tokenizer.id_to_token(token) is not None]
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@given(st.lists(st.integers(0, 263), max_size=40))
def test_any_bytes_to_fall_back_to_give_a_text(ids):
    found = "".join(pieces(byte_fallback(), ids))
    assert len(found) <= len(byte_fallback().decode(ids))


def test_a_character_comes_whole():
    tokenizer = byte_fallback()
    euro = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "€".encode()]
    assert pieces(tokenizer, [*euro, *euro[:1]]) == ["", "", "€", "", "\ufffd\ufffd\ufffd\ufffd"[1:]]
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in euro] == ["", "", "€"]
    assert stream.finish() == ""


def test_bytes_that_are_no_character_are_replaced_at_the_end():
    tokenizer = byte_level()
    start = tokenizer.encode("ก").ids[:1]
    assert tokenizer.decode(start) == "\ufffd"
    assert pieces(tokenizer, start) == ["", "\ufffd"]


def characters(text):
    """A stream whose tokens are the characters of a text."""
    tokenizer = byte_level()
    return [token for character in text for token in tokenizer.encode(character).ids]


def cut(text, stop):
    """The text before the stop string that is whole first, character by character."""
    for end in range(len(text) + 1):
        starts = [end - len(string) for string in stop if text[:end].endswith(string)]
        if starts:
            return text[: min(starts)]
    return text


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one END two", "END", "one "),
        ("one END two", ["two", "END"], "one "),
        ("one EN", ["END"], "one EN"),
        ("one EEND", ["END"], "one E"),
        ("aabaabaac", ["aabaac"], "aab"),
        ("ENEND", ["END"], "EN"),
        ("abcd", ["abcd", "bc"], "a"),
        ("abcd", ["bcd", "abcd"], ""),
        ("a 👩‍👧 b", ["👧"], "a 👩\u200d"),
        ("a\n\nb", ["\n\n"], "a"),
        ("END", ["END"], ""),
        ("text", [], "text"),
    ],
)
def test_texts_end_before_a_stop_string(text, stop, expected):
    assert "".join(pieces(byte_level(), characters(text), stop)) == expected
    assert "".join(pieces(byte_level(), byte_level().encode(text).ids, stop)) == expected


@given(st.text("ab世", max_size=20), st.lists(st.text("ab世", min_size=1, max_size=4), max_size=3))
def test_stop_strings_do_not_depend_on_pieces(text, stop):
    expected = cut(text, stop)
    for ids in (characters(text), byte_level().encode(text).ids):
        stream = TextStream(byte_level(), stop)
        found = ""
        for token in ids:
            found += stream.push(token)
            assert expected.startswith(found)
        stopped = stream.stopped
        assert found + stream.finish() == expected
        assert stopped == any(string in text for string in stop)


def test_only_what_may_begin_a_stop_string_is_held_back():
    stream = TextStream(byte_level(), ["END"])
    assert [stream.push(token) for token in characters("xENxE")] == ["x", "", "", "ENx", ""]
    assert not stream.stopped
    assert [stream.push(token) for token in characters("NDy")] == ["", "", ""]
    assert stream.stopped
    assert stream.finish() == ""


def test_a_stop_string_of_the_last_bytes_is_found():
    tokenizer = byte_level()
    stream = TextStream(tokenizer, ["\ufffd"])
    assert "".join([*map(stream.push, characters("ab")), *map(stream.push, tokenizer.encode("ก").ids[:1])]) == "ab"
    assert stream.finish() == ""
    assert stream.stopped


@pytest.mark.parametrize(("stop", "error"), [(["a", ""], ValueError), ("", ValueError), ([1], TypeError)])
def test_impossible_stop_strings_are_refused(stop, error):
    with pytest.raises(error, match="stop must"):
        TextStream(byte_level(), stop)
