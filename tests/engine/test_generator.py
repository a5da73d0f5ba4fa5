"""`Generator` writes the same texts as transformers, alone, in batches and with reused caches."""

import threading
from functools import partial

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tiny_decoders import DECODERS, WORDS, decoder, logits, saved, tokens, write_tokenizer
from tiny_encoders import assert_close, change_json, encoder

import sparsekit
from sparsekit import runtime
from sparsekit.engine import Encoder, Generator, compile_model
from sparsekit.engine.chat_template import ChatTemplate

LENGTHS = (1, 2, 7, 20, 33)
NEW = 20


def prompt(length: int) -> str:
    return " ".join(f"w{number}" for number in np.random.default_rng(length).integers(2, 97, length))


PROMPTS = [prompt(length) for length in LENGTHS]


def greedy(model, text: str, new: int = NEW) -> list[int]:
    """What transformers writes."""
    ids = torch.tensor([[WORDS[word] for word in text.split()]])
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return written[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module")
def llama():
    return decoder("llama").eval()


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory):
    return saved(llama, tmp_path_factory.mktemp("generator") / "model")


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_greedy_texts_of_every_family(family, tmp_path):
    model = decoder(family).eval()
    generator = Generator(saved(model, tmp_path / "model"))
    done = generator.complete(PROMPTS, max_new_tokens=NEW, temperature=0.0)
    assert [one.tokens for one in done] == [greedy(model, text) for text in PROMPTS]
    assert {one.finish for one in done} == {"length"}
    ids = tokens()
    for found in (generator.logits([ids])[0], generator.logits([ids[:9], ids])[1]):
        assert_close(found, logits(model, ids))


def test_every_instruction_set(llama, folder, isa):
    assert Generator(folder).complete(PROMPTS[2:3], max_new_tokens=NEW)[0].tokens == greedy(llama, PROMPTS[2])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_sparse_folders(family, tmp_path):
    model = decoder(family).eval()
    sparsekit.prune(model, 0.6)
    sparsekit.pruning.finalize(model)
    expected = [greedy(model, text) for text in PROMPTS]
    sparsekit.save(sparsekit.convert(model, min_sparsity=0.5), tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    assert [one.tokens for one in Generator(tmp_path / "model").complete(PROMPTS, max_new_tokens=NEW)] == expected


def test_batches_and_prefixes_change_no_token(llama, folder):
    generator = Generator(folder)
    many = [*PROMPTS, *PROMPTS[::-1], PROMPTS[-1] + " w5", PROMPTS[-1] + " w6"]
    expected = [greedy(llama, text) for text in many]
    alone = [Generator(folder).complete([text], max_new_tokens=NEW)[0] for text in many]
    together = generator.complete(many, max_new_tokens=NEW)
    again = generator.complete(many, max_new_tokens=NEW)
    for done in (alone, together, again):
        assert [one.tokens for one in done] == expected
    assert not any(one.reused_tokens for one in alone)
    assert all(one.reused_tokens >= 32 for one in together[-2:]), "a cache of the same text held them"
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)


CACHE_DTYPES = {"float32": 4 * 12, "bfloat16": 2 * 12, "int8": 12 + 4}  # bytes of a head of 12 numbers


def numbers_of(text: str) -> list[int]:
    return [WORDS[word] for word in text.split()]


@pytest.mark.parametrize("dtype", CACHE_DTYPES)
def test_types_of_caches(dtype, folder, isa):
    """A token has the same key and value alone, in a prompt, in a batch and copied; logits are close to float32's."""
    generator = Generator(folder, cache_dtype=dtype)
    assert generator.cache_bytes == 2 * 2 * 3 * CACHE_DTYPES[dtype], "keys and values of two heads in three layers"
    many = [*PROMPTS, *PROMPTS[::-1], PROMPTS[-1] + " w5", PROMPTS[-1] + " w6"]
    alone = [Generator(folder, cache_dtype=dtype).complete([text], max_new_tokens=NEW)[0] for text in many]
    together = generator.complete(many, max_new_tokens=NEW)
    again = generator.complete(many, max_new_tokens=NEW)
    for done in (together, again):
        assert [one.tokens for one in done] == [one.tokens for one in alone]
    ids = numbers_of(PROMPTS[-1])
    (exact,) = Generator(folder).logits([ids])
    (found,) = generator.logits([ids])
    error = np.abs(found - exact)
    mean, most = {"float32": (1e-6, 1e-5), "bfloat16": (2e-3, 0.03), "int8": (4e-3, 0.08)}[dtype]
    assert error.mean() < mean * np.abs(exact).max()
    assert error.max() < most * np.abs(exact).max()
    assert dtype == "float32" or error.max() > 0


def test_caches_of_a_type(folder):
    core = runtime.CompiledDecoder(compile_model(folder))
    ids = np.array(numbers_of(PROMPTS[-1]), np.int32)
    for dtype in CACHE_DTYPES:
        cache, other = core.make_cache(50, dtype), core.make_cache(40, dtype=dtype)
        expected = core.run(ids, np.array([0, 33]), [cache])
        other.copy(cache, 32)
        np.testing.assert_allclose(core.run(ids[32:], np.array([0, 1]), [other]), expected, atol=1e-5)
        assert core.cache_bytes(dtype) == 2 * 2 * 3 * CACHE_DTYPES[dtype]
    with pytest.raises(ValueError, match="caches of different types, float32 and int8"):
        core.make_cache(50).copy(cache, 3)
    refused = [core.cache_bytes, partial(core.make_cache, 5), lambda dtype: Generator("no-model", cache_dtype=dtype)]
    for function in refused:
        with pytest.raises(ValueError, match="stored in float32, bfloat16 or int8, got 'float16'"):
            function("float16")


class Counted(runtime.CompiledDecoder):
    """Says how many tokens each call computes."""

    def run(self, ids, offsets, caches, **options):
        self.__dict__.setdefault("calls", []).append(ids.size)
        return super().run(ids, offsets, caches, **options)


def test_a_common_beginning_is_computed_once(folder, monkeypatch):
    monkeypatch.setattr(runtime, "CompiledDecoder", Counted)
    begun = [f"{prompt(20)} {rest}" for rest in ("w5", "w6 w7", "w8 w9 w10")]
    prompts = [begun[0], "w11 w12", *begun[1:]]
    expected = [Generator(folder).complete([text], max_new_tokens=5)[0].tokens for text in prompts]
    generator = Generator(folder)
    done = generator.complete(prompts, max_new_tokens=5)
    assert [one.tokens for one in done] == expected
    assert [one.reused_tokens for one in done] == [0, 0, 20, 20]
    assert generator._core.calls == [21 + 2, 1 + 1 + 2 + 3, 4, 4, 4, 2]
    short = [f"{prompt(15)} {rest}" for rest in ("w5", "w6")]
    generator = Generator(folder)
    assert [one.reused_tokens for one in generator.complete(short, max_new_tokens=2)] == [0, 0], "too few to wait for"
    assert generator._core.calls == [32, 2]


def test_a_common_beginning_of_a_text_that_ends_at_once(folder):
    prompts = [f"{prompt(20)} w{number}" for number in range(5, 25)]
    expected = [Generator(folder).complete([text], max_new_tokens=1)[0].tokens for text in prompts]
    done = Generator(folder).complete(prompts, max_new_tokens=1)
    assert [one.tokens for one in done] == expected
    assert [one.reused_tokens for one in done] == [0] + [20] * 19


def test_log_probabilities(llama, folder):
    (done,) = Generator(folder).complete([PROMPTS[2]], max_new_tokens=5)
    ids = [WORDS[word] for word in PROMPTS[2].split()] + done.tokens
    expected = torch.log_softmax(torch.tensor(logits(llama, ids)), -1)[len(ids) - 6 : -1]
    found = [row[token] for row, token in zip(expected, done.tokens, strict=True)]
    np.testing.assert_allclose(done.log_probabilities, found, atol=1e-4)


def test_threads_share_a_generator(folder):
    generator = Generator(folder)
    expected = generator.generate(PROMPTS, max_new_tokens=NEW)
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        found[number] = generator.generate(PROMPTS, max_new_tokens=NEW)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), expected)


def test_pieces_join_to_the_text(folder):
    generator = Generator(folder)
    stream = generator.stream(PROMPTS[3], max_new_tokens=NEW)
    pieces = list(stream)
    assert len(pieces) > 10
    assert "".join(pieces) == stream.completion.text == generator.generate(PROMPTS[3], max_new_tokens=NEW)


def test_texts_end(folder):
    generator = Generator(folder, context=30)
    (whole,) = generator.complete([PROMPTS[2]])
    assert (whole.finish, len(whole.tokens)) == ("length", 30 - 7)
    words = whole.text.split()
    stop = next(word for word in words[3:] if words.index(word) >= 3)
    (stopped,) = generator.complete([PROMPTS[2]], stop=["no such word", stop])
    assert stopped.finish == "stop"
    assert stopped.text.split() == words[: words.index(stop)]
    change_json(folder / "generation_config.json", eos_token_id=[WORDS[stop]])
    try:
        (ended,) = Generator(folder).complete([PROMPTS[2]])
    finally:
        change_json(folder / "generation_config.json", eos_token_id=None)
    assert ended.finish == "end"
    assert ended.text.split() == words[: words.index(stop)]
    assert ended.tokens[-1] == WORDS[stop]


def test_texts_are_canceled(folder):
    generator = Generator(folder)
    cancel = threading.Event()
    stream = generator.stream(PROMPTS[2], cancel=cancel)
    next(stream)
    cancel.set()
    list(stream)
    assert stream.completion.finish == "canceled"
    assert len(stream.completion.tokens) <= 3
    stream = generator.stream(PROMPTS[2])
    next(stream)
    stream.close()
    assert stream.completion.finish == "canceled"
    assert list(stream) == []


def test_a_seed_gives_the_same_text(folder):
    generator = Generator(folder)
    options = {"max_new_tokens": NEW, "temperature": 1.0, "top_k": 20}
    one, other = (generator.generate(PROMPTS, seed=seed, **options) for seed in (1, 2))
    assert generator.generate(PROMPTS, seed=1, **options) == one
    assert generator.generate(PROMPTS[1], seed=1, **options) == one[1]
    assert one != other


def test_nan_is_never_chosen(tmp_path):
    model = decoder("llama").eval()
    model.lm_head.weight.data[5] = torch.nan
    generator = Generator(saved(model, tmp_path / "model"))
    with pytest.raises(FloatingPointError, match="NaN"):
        generator.generate(PROMPTS[1])


TEMPLATE = """{{ bos_token }}{% generation %}w5 {% endgeneration %}\
{% for message in messages %}{% if message.role == 'tool' %}\
{{ raise_exception('no tools') }}{% endif %}{{ message['role'] }}: {{ message.content | tojson }}{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}"""
MESSAGES = [{"role": "system", "content": "w3"}, {"role": "user", "content": 'w4 "ä"'}]


def test_chats_follow_the_template(folder, tmp_path):
    write_tokenizer(tmp_path, bos_token={"content": "<s>"}, chat_template=TEMPLATE)
    special = {"bos_token": "<s>"}
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), chat_template=TEMPLATE, **special
    )
    expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert ChatTemplate(tmp_path).prompt(MESSAGES) == expected
    generator = Generator(folder, tokenizer=tmp_path / "tokenizer.json")
    assert generator.chat(MESSAGES, max_new_tokens=5) == generator.generate(expected, max_new_tokens=5)
    with pytest.raises(ValueError, match="refuses the messages: no tools"):
        generator.chat([{"role": "tool", "content": "w3"}])
    with pytest.raises(ValueError, match="must have a role and content"):
        generator.chat([{"role": "user"}])


def test_templates_are_sandboxed(tmp_path):
    for template in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}"):
        write_tokenizer(tmp_path, chat_template=template)
        with pytest.raises(ValueError, match="refuses the messages"):
            ChatTemplate(tmp_path).prompt(MESSAGES)
    write_tokenizer(tmp_path, chat_template="{% for %}")
    with pytest.raises(ValueError, match="is damaged"):
        ChatTemplate(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        ChatTemplate(tmp_path)


def test_the_tokenizers_own_truncation_and_padding_are_left_out(folder, tmp_path):
    words = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    words.enable_truncation(5)
    words.enable_padding(length=40, pad_id=7)
    words.save(str(tmp_path / "tokenizer.json"))
    found = Generator(folder, tokenizer=tmp_path / "tokenizer.json").complete([PROMPTS[3]], max_new_tokens=NEW)
    assert found[0].prompt_tokens == 20
    assert found[0].tokens == Generator(folder).complete([PROMPTS[3]], max_new_tokens=NEW)[0].tokens


def test_other_models_are_refused_before_they_are_compiled(folder):
    for cache in (False, True):
        with pytest.raises(ValueError, match="is a language model; open it with Generator"):
            Encoder(folder, cache=cache)


def test_a_compiled_file(folder, tmp_path):
    expected = Generator(folder, dtype="int8", embeddings="int8").generate(PROMPTS[2], max_new_tokens=NEW)
    compile_model(folder, tmp_path / "model.bin", dtype="int8", embeddings="int8")
    generator = Generator(tmp_path / "model.bin", tokenizer=folder / "tokenizer.json")
    assert generator.generate(PROMPTS[2], max_new_tokens=NEW) == expected
    assert generator.cache_bytes == 2 * 2 * 12 * 3 * 4, "keys and values of two heads of 12 floats in three layers"
    with pytest.raises(ValueError, match="no tokenizer"):
        Generator(tmp_path / "model.bin").generate("w3")


def test_what_does_not_fit_is_refused(folder, tmp_path):
    generator = Generator(folder, context=20)
    refused = [
        ({"prompts": prompt(20)}, "from 1 to 19 tokens, .* got 20"),
        ({"prompts": ""}, "from 1 to 19 tokens, .* got 0"),
        ({"prompts": "w3", "max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"prompts": "w3", "top_p": 2.0, "temperature": 1.0}, "top_p"),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            generator.generate(**arguments)
    with pytest.raises(TypeError, match="texts must be str"):
        generator.generate([3])
    with pytest.raises(ValueError, match="context must be from 1 to the 64 tokens"):
        Generator(folder, context=65)
    with pytest.raises(ValueError, match="ids must be"):
        generator.logits([[97]])
    encoder("bert").save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="is an encoder; open it with Encoder"):
        Generator(tmp_path / "encoder")
    with pytest.raises(ValueError, match="makes vectors of an encoder"):
        compile_model(folder, pooling="mean")
