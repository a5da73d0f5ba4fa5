"""The next token, on numpy arrays."""

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
    """The next token of a sequence; options mean what they do in transformers, and apply as listed here.

    Args:
        logits: float32, shape [vocabulary]; minus infinity: never this token.
        seen: int32, shape [tokens]: tokens of the sequence so far, the prompt's among them; those beyond the vocabulary
            do not count. Only `repetition_penalty` needs them.
        repetition_penalty: divides positive logits of tokens seen so far, multiplies negative ones.
        temperature: divides logits. 0: the token of the largest logit, the lowest of equal ones, whatever the filters.
        top_k: keeps tokens whose logit is among the k largest; 0: all.
        top_p: keeps the fewest tokens whose probabilities add up to it; 1: all.
        min_p: keeps tokens at least so many times as probable as the best; 0: all.
        seed: from 0 to 2^64 - 1; the same arguments choose the same token, whatever ran before.
        step: which token of the sequence this is; another one draws another number.

    Returns:
        The token, and the logarithm of its probability in the softmax of `logits` as they are: without penalty,
        temperature and filters.

    Raises:
        TypeError: an argument has another type.
        ValueError: an argument has an impossible value or shape.
        FloatingPointError: the logits hold NaN or infinity, or nothing but minus infinity.

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
    """The options of `sample` as the core takes them.

    Raises:
        TypeError: one is no number.
        ValueError: one has an impossible value.
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
    """A seed or step.

    Raises:
        TypeError: it is no integer.
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
