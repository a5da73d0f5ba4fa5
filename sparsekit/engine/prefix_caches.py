"""Prefix caching: reuse the key-value caches of finished texts for later texts with the same prefix."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TypeAlias

from sparsekit import runtime

#: Shorter prefixes are computed again, which is cheaper than evicting or copying a cache.
_LEAST_PREFIX = 8

#: A text and a cache with its first tokens.
Held: TypeAlias = tuple[Sequence[int], runtime.KeyValueCache]


class PrefixCaches:
    """Pool of key-value caches that reuses shared prefixes. Threads may share it.

    Args:
        decoder: creates the caches.
        capacity: tokens per cache.
        dtype: type of keys and values.
        kept: largest number of idle caches.
    """

    def __init__(self, decoder: runtime.CompiledDecoder, capacity: int, dtype: str = "float32", kept: int = 4) -> None:
        self._decoder = decoder
        self._capacity = capacity
        self._dtype = dtype
        self._kept = kept
        self._idle: list[Held] = []  # in order of use, the most recent last
        self._lock = threading.Lock()

    def make(self) -> runtime.KeyValueCache:
        """An empty cache."""
        return self._decoder.make_cache(self._capacity, self._dtype)

    def take(self, ids: Sequence[int], running: Iterable[Held] = ()) -> runtime.KeyValueCache:
        """A cache with the longest known prefix of a text, excluding its last token.

        Args:
            ids: token ids of the text.
            running: unfinished texts of the calling thread, whose caches may be copied.
        """
        other, copied = _longest(ids, running)
        with self._lock:
            idle, best = _longest(ids, self._idle)
            if idle is not None and best >= max(copied, _LEAST_PREFIX):
                self._idle.remove(idle)
                idle[1].truncate(best)
                return idle[1]
        cache = self.make()
        if other is not None and copied >= _LEAST_PREFIX:
            cache.copy(other[1], copied)
        return cache

    def held(self, ids: Sequence[int], running: Iterable[Held]) -> int:
        """Length of the prefix that `take` would find now."""
        with self._lock:
            return max(_longest(ids, self._idle)[1], _longest(ids, running)[1])

    def give_back(self, ids: Sequence[int], cache: runtime.KeyValueCache) -> None:
        """Return the cache of a finished text to the pool; `ids` are the text's tokens."""
        with self._lock:
            self._idle.append((list(ids[: cache.tokens]), cache))
            del self._idle[: -self._kept]


def shared_tokens(ids: Sequence[int], others: Sequence[int]) -> int:
    """Length of the prefix that two texts share, excluding the text's last token, which is always computed."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:-1], others, strict=False))
    return sum(1 for _ in same)


def _longest(ids: Sequence[int], held: Iterable[Held]) -> tuple[Held | None, int]:
    """Index of the cached text with the longest shared prefix, and the prefix's length."""
    found = [(one, shared_tokens(ids, one[0][: one[1].tokens])) for one in held]
    return max(found, key=lambda pair: pair[1], default=(None, 0))
