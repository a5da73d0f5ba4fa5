"""Sampling settings, and those in a folder's generation_config.json."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsekit import runtime
from sparsekit.io.file_names import GENERATION_CONFIG

#: transformers' defaults for sampling.
_SAMPLED = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
#: Filters, which have no effect at temperature 0 -> value that keeps all tokens.
_FILTERS = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass(frozen=True)
class Sampling:
    """How to sample the next token; greedy by default. Applied by `runtime.sample`.

    Args:
        temperature: divides logits; 0 for greedy decoding.
        top_k: keeps tokens whose logit is among the k largest; 0: all.
        top_p: keeps the fewest tokens whose probabilities add up to it; 1: all.
        min_p: keeps tokens whose probability is at least this fraction of the largest; 0: all.
        repetition_penalty: divides positive logits of tokens that occur in the prompt or text, multiplies negative
            ones.
        seed: from 0 to 2^64 - 1; the same seed gives the same text. None: a random seed for each call.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range, or is a filter although temperature is 0.

    >>> Sampling(temperature=0.7, top_p=0.9, seed=1)
    Sampling(temperature=0.7, top_k=0, top_p=0.9, min_p=0.0, repetition_penalty=1.0, seed=1)
    >>> Sampling(top_p=0.9)
    Traceback (most recent call last):
    ValueError: top_p=0.9 has no effect where temperature is 0; give temperature=1.0, or leave it out
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        runtime.checked_sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)
        if self.seed is not None:
            runtime.checked_counter("seed", self.seed)
        ignored = [name for name, keeps_all in _FILTERS.items() if getattr(self, name) != keeps_all]
        if self.temperature == 0 and ignored:
            raise ValueError(f"{ignored[0]}={getattr(self, ignored[0])} has no effect where temperature is 0; "
                             "give temperature=1.0, or leave it out")  # fmt: skip

    def seed_of_text(self) -> int:
        """The seed, or a random one for each call."""
        return secrets.randbits(64) if self.seed is None else self.seed


def sampling_of(options: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Sampling:
    """Settings of a folder with a caller's overrides; greedy unless either samples, as in transformers' `generate`.

    Args:
        options: content of generation_config.json; missing keys have transformers' defaults (top_k=50 if tokens are
            sampled), unknown keys are ignored.
        overrides: fields of `Sampling`, None for those not given. A temperature above 0 samples, 0 is greedy, whatever
            the folder says.

    Raises:
        TypeError: an override has a wrong type, or there is no such field.
        ValueError: a value is out of range.

    >>> sampling_of({"do_sample": True, "temperature": 0.6}, {"top_k": 20})
    Sampling(temperature=0.6, top_k=20, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=None)
    >>> sampling_of({"temperature": 0.6, "repetition_penalty": 1.1})
    Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.1, seed=None)
    """
    given = _given(overrides or {})
    found = _folder_settings(_given(options), samples=_samples(options, given.get("temperature")))
    return Sampling(**{**found, **given})


def end_tokens_of(options: Mapping[str, Any]) -> frozenset[int]:
    """End tokens, from the `eos_token_id` of generation_config.json or config.json.

    Raises:
        ValueError: it is neither a token nor a list of tokens.

    >>> sorted(end_tokens_of({"eos_token_id": [2, 7]}))
    [2, 7]
    """
    value = options.get("eos_token_id")
    tokens = [] if value is None else value if isinstance(value, list) else [value]
    for token in tokens:
        if type(token) is not int or not 0 <= token < 2**31:
            raise ValueError(f"eos_token_id must be a token from 0 to 2^31 - 1, or a list of them, got {value!r:.80}")
    return frozenset(tokens)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _samples(options: Mapping[str, Any], temperature: Any) -> bool:
    """Whether the folder's settings sample rather than decode greedily."""
    if temperature is not None:
        return bool(temperature != 0)
    do_sample = options.get("do_sample")
    if not isinstance(do_sample, bool | None):
        raise ValueError(f"do_sample of {GENERATION_CONFIG} must be true or false, got {do_sample!r:.80}")
    return do_sample is True and options.get("temperature") != 0


def _folder_settings(options: Mapping[str, Any], *, samples: bool) -> dict[str, Any]:
    """Fields of `Sampling` in a folder's settings, checked."""
    found = {name: options.get(name, default) for name, default in _SAMPLED.items()} if samples else {}
    found["repetition_penalty"] = options.get("repetition_penalty", 1.0)
    try:
        runtime.checked_sampling(**{"temperature": 0.0, **_FILTERS, **found})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{GENERATION_CONFIG}: {error}") from error
    return found
