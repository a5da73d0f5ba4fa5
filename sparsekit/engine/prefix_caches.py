"""Caches of texts that are done, for later texts that begin as they did."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TypeAlias

from sparsekit import runtime

#: A prefix shorter than this is computed again: that takes less than giving up or copying a cache.
_LEAST_PREFIX = 8

#: A text and a cache that holds its first tokens.
Held: TypeAlias = tuple[Sequence[int], runtime.KeyValueCache]


class PrefixCaches:
    """Hands out caches that already hold the beginning of a text. Threads may share it.

    Args:
        decoder: whose caches.
        capacity: tokens that a cache has room for.
        dtype: of keys and values.
        kept: most caches that are kept while no text uses them.
    """

    def __init__(self, decoder: runtime.CompiledDecoder, capacity: int, dtype: str = "float32", kept: int = 4) -> None:
        self._decoder = decoder
        self._capacity = capacity
        self._dtype = dtype
        self._kept = kept
        self._idle: list[Held] = []  # the one that was used last is last
        self._lock = threading.Lock()

    def make(self) -> runtime.KeyValueCache:
        """An empty cache."""
        return self._decoder.make_cache(self._capacity, self._dtype)

    def take(self, ids: Sequence[int], running: Iterable[Held] = ()) -> runtime.KeyValueCache:
        """A cache that holds the longest beginning of a text that any has, without its last token.

        Args:
            ids: the text.
            running: texts of the calling thread that are not done, with their caches, which are copied.
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
        """How many tokens `take` would find of a text now."""
        with self._lock:
            return max(_longest(ids, self._idle)[1], _longest(ids, running)[1])

    def give_back(self, ids: Sequence[int], cache: runtime.KeyValueCache) -> None:
        """Keep the cache of a text that is done, of which it holds the first tokens."""
        with self._lock:
            self._idle.append((list(ids[: cache.tokens]), cache))
            del self._idle[: -self._kept]


def shared_tokens(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many first tokens of a text another one has too, but never its last, which is to be computed in any case."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:-1], others, strict=False))
    return sum(1 for _ in same)


def _longest(ids: Sequence[int], held: Iterable[Held]) -> tuple[Held | None, int]:
    """Which of some texts with caches holds the longest beginning of a text, and its tokens."""
    found = [(one, shared_tokens(ids, one[0][: one[1].tokens])) for one in held]
    return max(found, key=lambda pair: pair[1], default=(None, 0))
