"""Check values of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsekit.engine.refusals import refusal

#: transformers' name of an activation function -> its name in `runtime.ACTIVATIONS`.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
#: Largest number of positions for which a compiled model stores a table.
_MOST_POSITIONS = 2**17


def whole(config: Mapping[str, Any], key: str, default: int, least: int) -> int:
    """A whole number below 2^24.

    Raises:
        ValueError: it is something else, or less than `least`.
    """
    value = config.get(key, default)
    if type(value) is not int or not least <= value < 2**24:
        raise ValueError(f"{key} of config.json must be a number from {least} to 2^24 - 1, got {value!r:.80}")
    return value


def flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """True or false.

    Raises:
        ValueError: it is something else.
    """
    value = config.get(key, default)
    if type(value) is not bool:
        raise ValueError(f"{key} of config.json must be true or false, got {value!r:.80}")
    return value


def activation_named(name: object, key: str) -> str:
    """Name in `runtime.ACTIVATIONS` of an activation function of transformers.

    Args:
        name: value in the configuration.
        key: its key.

    Raises:
        ValueError: the engine has no such activation function.
    """
    if not isinstance(name, str) or name not in ACTIVATION_NAMES:
        raise refusal(f"{key}={name!r:.80}, only {', '.join(ACTIVATION_NAMES)}")
    return ACTIVATION_NAMES[name]


def number(value: object, key: str, least: float, most: float) -> float:
    """A number of a configuration.

    Args:
        value: value in the configuration.
        key: its key.
        least: smallest valid value.
        most: largest valid value.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{key} of config.json must be a number from {least:g} to {most:g}, got {value!r:.80}")
    return float(value)


def epsilon(value: object, key: str) -> float:
    """Epsilon of a norm.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise ValueError(f"{key} of config.json must be a number between 0 and 1, got {value!r:.80}")
    return float(value)


def positions(config: Mapping[str, Any], default: int) -> int:
    """`max_position_embeddings` of a model with relative or rotary positions.

    Raises:
        ValueError: it is not a positive integer, or too large for the engine.
    """
    value = whole(config, "max_position_embeddings", default, 1)
    if value > _MOST_POSITIONS:
        raise refusal(f"max_position_embeddings={value}, only up to {_MOST_POSITIONS}")
    return value
