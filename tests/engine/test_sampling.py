"""Tokens are drawn with the probabilities of transformers' logits processors; settings of folders."""

import numpy as np
import pytest
import torch
import transformers

from sparsekit import runtime
from sparsekit.engine.sampling import Sampling, end_tokens_of, sampling_of

DRAWS = 4000
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.3},
    {"temperature": 1.0, "repetition_penalty": 1.4},
    {"temperature": 1.0, "repetition_penalty": 0.6, "top_k": 12},
    {"temperature": 0.8, "top_k": 15, "top_p": 0.7, "min_p": 0.2, "repetition_penalty": 1.3},
    {"temperature": 1.2, "top_k": 100, "top_p": 0.95},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "min_p": 1.0},
]


def probabilities(logits, seen, settings):
    """Those of transformers, in float64, with the processors that `generate` builds."""
    config = transformers.GenerationConfig(do_sample=True, **{"top_k": 0, "top_p": 1.0, **settings})
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=len(logits), n_embd=4, n_layer=1, n_head=1, n_positions=4)
    )
    model._prepare_special_tokens(config)
    processors = model._get_logits_processor(config, input_ids_seq_length=len(seen))
    scores = torch.from_numpy(logits).double()[None]
    return processors(torch.from_numpy(seen).long()[None], scores).softmax(-1)[0].numpy()


def drawn(logits, seen, settings):
    tokens = [runtime.sample(logits, seen, **settings, seed=5, step=step)[0] for step in range(DRAWS)]
    return np.bincount(tokens, minlength=len(logits))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_tokens_are_drawn_as_transformers_keeps_them(settings, seed):
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-1.5, 1.5, 24).astype(np.float32)
    seen = rng.integers(0, 24, 9).astype(np.int32)
    expected = probabilities(logits, seen, settings)
    counts = drawn(logits, seen, settings)
    assert expected[expected > 0].min() * DRAWS > 14  # every kept token should turn up
    np.testing.assert_array_equal(counts > 0, expected > 0)
    deviation = np.sqrt(DRAWS * expected * (1 - expected))
    assert (np.abs(counts - DRAWS * expected) <= 5 * deviation).all()


@pytest.mark.parametrize("vocabulary", [1, 33, 49_152])
def test_greedy_and_its_log_probability_are_those_of_torch(vocabulary, rng):
    for _ in range(5):
        logits = rng.standard_normal(vocabulary).astype(np.float32) * 8
        token, log_probability = runtime.sample(logits)
        assert token == logits.argmax()
        expected = torch.from_numpy(logits).double().log_softmax(-1)[token].item()
        assert log_probability == pytest.approx(expected, abs=1e-6)


def test_the_log_probability_is_that_of_logits_as_they_are():
    logits = np.array([3, 2, 1], np.float32)
    token, log_probability = runtime.sample(logits, np.array([0, 0], np.int32), repetition_penalty=2.0)
    assert token == 1
    assert log_probability == pytest.approx(torch.from_numpy(logits).log_softmax(-1)[1].item(), abs=1e-6)
    assert logits.tolist() == [3, 2, 1]


def test_a_seed_and_a_step_choose_the_token():
    logits = np.zeros(1000, np.float32)
    tokens = [runtime.sample(logits, temperature=1.0, seed=seed, step=step)[0] for seed in (0, 1) for step in range(4)]
    assert tokens[:4] == [652, 701, 387, 656]
    assert len(set(tokens)) == 8
    largest = 2**64 - 1
    assert runtime.sample(logits, temperature=1.0, seed=largest, step=largest)[0] < 1000


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([1, np.nan, np.inf], "NaN as the logit of token 1"),
        ([1, 2, np.inf], "infinity as the logit of token 2"),
        ([-np.inf, -np.inf], "minus infinity as the logit of every token"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_give_no_token(logits, message, temperature):
    with pytest.raises(FloatingPointError, match=f"the model gives {message}"):
        runtime.sample(np.array(logits, np.float32), temperature=temperature)


WRONG = [
    ({"temperature": -0.1}, ValueError, "temperature must be a finite number of at least 0, got -0.1"),
    ({"temperature": float("nan")}, ValueError, "temperature must be a finite number of at least 0, got nan"),
    ({"temperature": 10**400}, ValueError, "temperature must be a finite number"),
    ({"temperature": 1e300}, ValueError, "temperature must be a finite number of at least 0, got inf"),
    ({"temperature": "1"}, TypeError, "temperature must be a number, got '1'"),
    ({"temperature": True}, TypeError, "temperature must be a number, got True"),
    ({"top_k": -1}, ValueError, "top_k must be at least 0, got -1"),
    ({"top_k": -(10**30)}, ValueError, "top_k must be at least 0"),
    ({"top_k": 5.0}, TypeError, "top_k must be an integer, got 5.0"),
    ({"top_p": 1.5}, ValueError, "top_p must be from 0 to 1, got 1.5"),
    ({"min_p": -1}, ValueError, "min_p must be from 0 to 1, got -1"),
    ({"repetition_penalty": 0}, ValueError, "repetition_penalty must be a finite number above 0, got 0"),
    ({"seed": -1}, ValueError, r"seed must be from 0 to 2\^64 - 1, got -1"),
    ({"seed": 2**64}, ValueError, "seed must be from 0"),
    ({"seed": 1.0}, TypeError, "seed must be an integer, got 1.0"),
]


@pytest.mark.parametrize(("settings", "error", "message"), WRONG)
def test_impossible_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Sampling(**{"temperature": 1.0, **settings})
    with pytest.raises(error, match=message):
        runtime.sample(np.zeros(3, np.float32), **settings)


def test_impossible_arrays_are_refused():
    logits = np.zeros(3, np.float32)
    with pytest.raises(TypeError, match="logits must be a float32 array, got float64"):
        runtime.sample(logits.astype(np.float64))
    with pytest.raises(ValueError, match=r"logits must have shape \[vocabulary\], got \[1, 3\]"):
        runtime.sample(logits[None])
    with pytest.raises(ValueError, match="logits must have at least one token"):
        runtime.sample(logits[:0])
    with pytest.raises(TypeError, match="seen must be a contiguous array of int32"):
        runtime.sample(logits, np.array([1]))
    with pytest.raises(ValueError, match="tokens seen must not be negative, got -1"):
        runtime.sample(logits, np.array([-1], np.int32), repetition_penalty=1.1)
    with pytest.raises(ValueError, match="step must be from 0"):
        runtime.sample(logits, step=-1)
    assert runtime.sample(np.array([0, 9, 5, 9, 1], np.float32)[::2])[0] == 1  # any strides


def test_more_of_top_k_than_any_vocabulary_keeps_all():
    assert Sampling(temperature=1.0, top_k=2**40).top_k == 2**40
    assert runtime.sample(np.zeros(3, np.float32), temperature=1.0, top_k=2**40)[0] in range(3)


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_filters_without_temperature_are_refused(settings):
    with pytest.raises(ValueError, match=r"has no effect where temperature is 0; give temperature=1\.0"):
        Sampling(**settings)
    with pytest.raises(ValueError, match="has no effect where temperature is 0"):
        sampling_of({}, settings)


def test_texts_without_a_seed_differ():
    assert Sampling(seed=3).seed_of_text() == 3
    assert Sampling().seed_of_text() != Sampling().seed_of_text()


SAMPLES = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "transformers_version": "5.0"}


@pytest.mark.parametrize(
    ("options", "overrides", "expected"),
    [
        ({}, {}, Sampling()),
        ({"do_sample": None, "temperature": None}, None, Sampling()),
        ({"do_sample": False, "temperature": 0.6, "top_k": 20}, {}, Sampling()),
        ({"do_sample": True}, {}, Sampling(1.0, 50)),
        (SAMPLES, {}, Sampling(0.6, 50, 0.9)),
        ({**SAMPLES, "top_k": 0, "min_p": 0.1}, {}, Sampling(0.6, 0, 0.9, 0.1)),
        (SAMPLES, {"temperature": 0}, Sampling()),
        ({**SAMPLES, "repetition_penalty": 1.1}, {"temperature": 0}, Sampling(repetition_penalty=1.1)),
        (SAMPLES, {"top_k": 0, "top_p": None, "seed": 4}, Sampling(0.6, 0, 0.9, seed=4)),
        ({"top_p": 0.9}, {"temperature": 2.0}, Sampling(2.0, 50, 0.9)),
        ({"do_sample": True, "temperature": 0.0}, {}, Sampling()),
        ({"do_sample": True, "temperature": 0.0}, {"temperature": 1}, Sampling(1, 50)),
        ({"do_sample": True, "top_k": 10**30}, {}, Sampling(1.0, 10**30)),
    ],
)
def test_settings_of_a_folder(options, overrides, expected):
    assert sampling_of(options, overrides) == expected


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.3}, {"top_k": 7, "top_p": 0.4}])
def test_a_folder_samples_as_transformers_does(settings):
    config = transformers.GenerationConfig(do_sample=True, **settings)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=60, n_embd=4, n_layer=1, n_head=1))
    complete, _ = model._prepare_generation_config(config)
    found = sampling_of(config.to_diff_dict())
    names = ("temperature", "top_k", "top_p", "repetition_penalty")
    assert [getattr(found, name) for name in names] == [getattr(complete, name) for name in names]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": "yes"}, "do_sample of generation_config.json must be true or false, got 'yes'"),
        ({"do_sample": True, "top_k": 2.5}, r"generation_config\.json: top_k must be an integer, got 2\.5"),
        ({"do_sample": True, "temperature": [1]}, r"generation_config\.json: temperature must be a number"),
        ({"repetition_penalty": 0}, r"generation_config\.json: repetition_penalty must be a finite number above 0"),
    ],
)
def test_damaged_settings_of_a_folder_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampling_of(options)


def test_overrides_are_checked_as_settings():
    with pytest.raises(TypeError, match="top_k must be an integer"):
        sampling_of({}, {"temperature": 1.0, "top_k": "5"})
    with pytest.raises(TypeError, match="topk"):
        sampling_of({}, {"topk": 5})


def test_end_tokens():
    assert end_tokens_of({}) == end_tokens_of({"eos_token_id": None}) == end_tokens_of({"eos_token_id": []}) == set()
    assert end_tokens_of({"eos_token_id": 0}) == {0}
    assert end_tokens_of({"eos_token_id": [1, 5, 1]}) == {1, 5}


@pytest.mark.parametrize("value", ["</s>", -1, True, 2**31, 1.0, [1, None], {"id": 1}])
def test_impossible_end_tokens_are_refused(value):
    with pytest.raises(ValueError, match="eos_token_id must be a token from 0"):
        end_tokens_of({"eos_token_id": value})
