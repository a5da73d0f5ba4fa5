"""Values of config.json, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsekit.engine.refusals import refusal

#: Most positions where a compiled model holds something of each.
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


def positions(config: Mapping[str, Any], default: int) -> int:
    """max_position_embeddings of a model whose attention knows of positions.

    Raises:
        ValueError: it is no number from 1 on, or too large for the engine.
    """
    value = whole(config, "max_position_embeddings", default, 1)
    if value > _MOST_POSITIONS:
        raise refusal(f"max_position_embeddings={value}, only up to {_MOST_POSITIONS}")
    return value
