"""How the next token is chosen: settings, and those of a folder's generation_config.json."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsekit import runtime
from sparsekit.io.file_names import GENERATION_CONFIG

#: What transformers samples with where neither the folder nor the caller says.
_SAMPLED = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
#: Settings that choose among tokens, which matter only where temperature is above 0, and when they keep all of them.
_FILTERS = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; by default the most probable one (greedy). `runtime.sample` applies it.

    Args:
        temperature: divides logits; 0: the most probable token.
        top_k: keeps tokens whose logit is among the k largest; 0: all.
        top_p: keeps the fewest tokens whose probabilities add up to it; 1: all.
        min_p: keeps tokens at least so many times as probable as the best; 0: all.
        repetition_penalty: divides positive logits of tokens of the text and its prompt, multiplies negative ones.
        seed: from 0 to 2^64 - 1: the same one gives the same text; None: another text each time.

    Raises:
        TypeError: one has another type.
        ValueError: one has an impossible value, or chooses among tokens while temperature is 0.

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
        """The seed, or a new one for every call where there is none."""
        return secrets.randbits(64) if self.seed is None else self.seed


def sampling_of(options: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Sampling:
    """What a folder says, changed by a caller; as transformers' `generate`, greedy unless one of them samples.

    Args:
        options: generation_config.json; what is missing there has transformers' default (top_k=50 where tokens are
            sampled), unknown keys are ignored.
        overrides: fields of `Sampling`; None: not given. A temperature above 0 samples, 0 does not, whatever the
            folder says.

    Raises:
        TypeError: a value of the caller's has another type, or there is no such field.
        ValueError: a value is impossible.

    >>> sampling_of({"do_sample": True, "temperature": 0.6}, {"top_k": 20})
    Sampling(temperature=0.6, top_k=20, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=None)
    >>> sampling_of({"temperature": 0.6, "repetition_penalty": 1.1})
    Sampling(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.1, seed=None)
    """
    given = _given(overrides or {})
    found = _folder_settings(_given(options), samples=_samples(options, given.get("temperature")))
    return Sampling(**{**found, **given})


def end_tokens_of(options: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end a text, of the eos_token_id of generation_config.json or config.json.

    Raises:
        ValueError: it is neither a token, nor a list of them.

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
    """Whether tokens are sampled."""
    if temperature is not None:
        return bool(temperature != 0)
    do_sample = options.get("do_sample")
    if not isinstance(do_sample, bool | None):
        raise ValueError(f"do_sample of {GENERATION_CONFIG} must be true or false, got {do_sample!r:.80}")
    return do_sample is True and options.get("temperature") != 0


def _folder_settings(options: Mapping[str, Any], *, samples: bool) -> dict[str, Any]:
    """Fields of `Sampling`, checked, of a folder."""
    found = {name: options.get(name, default) for name, default in _SAMPLED.items()} if samples else {}
    found["repetition_penalty"] = options.get("repetition_penalty", 1.0)
    try:
        runtime.checked_sampling(**{"temperature": 0.0, **_FILTERS, **found})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{GENERATION_CONFIG}: {error}") from error
    return found
