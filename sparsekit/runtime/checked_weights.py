"""Track validated packed weights: each is checked once, since kernels check nothing."""

from __future__ import annotations

import weakref
from typing import Any

#: Id of an array or tensor -> address of its checked weight, for the lifetime of the object.
checked_places: dict[int, int] = {}
_holders: dict[int, weakref.ref[Any]] = {}


def remember(holder: Any, place: int) -> None:
    """Record that the packed weight of an array or tensor was checked at this address."""
    key = id(holder)

    def forget(_: Any) -> None:
        checked_places.pop(key, None)
        _holders.pop(key, None)

    _holders[key] = weakref.ref(holder, forget)
    checked_places[key] = place
