"""Which packed weights were validated: each once, since kernels check nothing."""

from __future__ import annotations

import weakref
from typing import Any

#: Where the checked ones lie, by the identity of the array or tensor that holds each, as long as that lives.
checked_places: dict[int, int] = {}
_holders: dict[int, weakref.ref[Any]] = {}


def remember(holder: Any, place: int) -> None:
    """Note that the packed weight of an array or tensor was checked, as long as its bytes are at this address."""
    key = id(holder)

    def forget(_: Any) -> None:
        checked_places.pop(key, None)
        _holders.pop(key, None)

    _holders[key] = weakref.ref(holder, forget)
    checked_places[key] = place
