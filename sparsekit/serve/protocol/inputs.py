"""The forms in which texts come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from sparsekit.engine.tokenizing import Text
from sparsekit.serve.errors import invalid


def texts_or_ids(given: str | Sequence[Any], param: str) -> list[str] | list[list[int]]:
    """Texts, or token ids of texts, from one or several of either.

    Args:
        given: text, texts, ids, or lists of ids.
        param: the field, for the message.

    Raises:
        RequestError: it mixes them.

    >>> texts_or_ids("a", "input"), texts_or_ids([1, 2], "input"), texts_or_ids([[1], [2]], "input")
    (['a'], [[1, 2]], [[1], [2]])
    """
    if isinstance(given, str):
        return [given]
    items = list(given)
    if _all(items, str):
        return items
    if _all(items, int):
        return [items]
    if _all(items, list):
        return items
    raise invalid(f"{param} must be a text, a list of texts, a list of token ids, or a list of these", param=param)


def texts_or_pairs(given: str | Sequence[Any]) -> list[Text]:
    """Texts and pairs.

    Raises:
        RequestError: a list within has not two texts.

    >>> texts_or_pairs(["a", ["b", "c"]])
    ['a', ('b', 'c')]
    """
    items = [given] if isinstance(given, str) else given
    for number, item in enumerate(items):
        if isinstance(item, list) and len(item) != 2:
            raise invalid(f"text {number} must be a text or a pair, got a list of {len(item)}", param="input")
    return [item if isinstance(item, str) else (item[0], item[1]) for item in items]


def _all(items: list[Any], kind: type) -> TypeGuard[list[Any]]:
    return all(isinstance(item, kind) for item in items)
