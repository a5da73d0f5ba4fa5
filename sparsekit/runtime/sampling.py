"""Sample the next token from logits, on numpy arrays."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_float32, check_row

_INT32 = np.iinfo(np.int32)


def sample(
    logits: NDArray[np.float32],
    seen: NDArray[np.int32] | None = None,
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    step: int = 0,
) -> tuple[int, float]:
    """Sample the next token of a sequence. Options are those of transformers, applied in the order listed.

    Args:
        logits: float32, shape [vocabulary]; minus infinity: never this token.
        seen: int32, shape [tokens]: prompt and tokens so far, for `repetition_penalty`; ids outside the vocabulary are
            ignored.
        repetition_penalty: divides positive logits of tokens seen so far, multiplies negative ones.
        temperature: divides logits; 0: greedy, the lowest id of equal logits, regardless of filters.
        top_k: keeps tokens whose logit is among the k largest; 0: all.
        top_p: keeps the fewest tokens whose probabilities add up to it; 1: all.
        min_p: keeps tokens whose probability is at least this fraction of the largest; 0: all.
        seed: from 0 to 2^64 - 1; equal arguments give the same token.
        step: index of the token in the sequence, which selects the random number.

    Returns:
        The token, and its log-probability under the unmodified logits, without penalty, temperature and filters.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: an argument is out of range or has a wrong shape.
        FloatingPointError: the logits contain NaN or infinity, or only minus infinity.

    >>> token, log_probability = sample(np.log(np.array([0.25, 0.75], np.float32)))
    >>> token, round(log_probability, 4)
    (1, -0.2877)
    """
    options = checked_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    check_float32("logits", logits)
    if logits.ndim != 1:
        raise ValueError(f"logits must have shape [vocabulary], got {list(logits.shape)}")
    logits = np.ascontiguousarray(logits)
    seen = np.empty(0, np.int32) if seen is None else seen
    check_row("seen", seen, np.int32)
    numbers = checked_counter("seed", seed), checked_counter("step", step)
    try:
        return _C.sample(logits.ctypes.data, logits.size, seen.ctypes.data, seen.size, *options, *numbers)
    except RuntimeError as error:
        raise FloatingPointError(str(error)) from None


def checked_sampling(
    temperature: Any, top_k: Any, top_p: Any, min_p: Any, repetition_penalty: Any
) -> tuple[float, int, float, float, float]:
    """Check the options of `sample`, and convert them for the core.

    Raises:
        TypeError: an option is not a number.
        ValueError: an option is out of range.
    """
    options = (
        _real("temperature", temperature),
        max(_INT32.min, min(_integer("top_k", top_k), _INT32.max)),  # more tokens than any vocabulary has
        _real("top_p", top_p),
        _real("min_p", min_p),
        _real("repetition_penalty", repetition_penalty),
    )
    _C.check_sampling(*options)
    return options


def checked_counter(name: str, value: Any) -> int:
    """Check a seed or step.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is not from 0 to 2^64 - 1.
    """
    found = _integer(name, value)
    if not 0 <= found < 2**64:
        raise ValueError(f"{name} must be from 0 to 2^64 - 1, got {found}")
    return found


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r:.80}")
    return int(value)


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r:.80}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a finite number, got an integer beyond 10^308") from error
