"""Caches of texts that are done, for later texts that begin as they did."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from itertools import takewhile

from sparsekit import runtime

#: A prefix shorter than this is computed again: that takes less than giving up or copying a cache.
_LEAST_PREFIX = 8


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
        self._idle: list[tuple[list[int], runtime.KeyValueCache]] = []  # the one that was used last is last
        self._lock = threading.Lock()

    def make(self) -> runtime.KeyValueCache:
        """An empty cache."""
        return self._decoder.make_cache(self._capacity, self._dtype)

    def take(
        self, ids: Sequence[int], running: Iterable[tuple[Sequence[int], runtime.KeyValueCache]] = ()
    ) -> runtime.KeyValueCache:
        """A cache that holds the longest beginning of a text that any has, without its last token.

        Args:
            ids: the text.
            running: texts of the calling thread that are not done, with their caches, which are copied.
        """
        with self._lock:
            idle = max(range(len(self._idle)), key=lambda i: _held(ids, *self._idle[i]), default=None)
            best = 0 if idle is None else _held(ids, *self._idle[idle])
            other, copied = max(
                ((cache, _held(ids, tokens, cache)) for tokens, cache in running),
                key=lambda pair: pair[1],
                default=(None, 0),
            )
            if idle is not None and best >= max(copied, _LEAST_PREFIX):
                _, cache = self._idle.pop(idle)
                cache.truncate(best)
                return cache
        cache = self.make()
        if other is not None and copied >= _LEAST_PREFIX:
            cache.copy(other, copied)
        return cache

    def give_back(self, ids: Sequence[int], cache: runtime.KeyValueCache) -> None:
        """Keep the cache of a text that is done, of which it holds the first tokens."""
        with self._lock:
            self._idle.append((list(ids[: cache.tokens]), cache))
            del self._idle[: -self._kept]


def _held(ids: Sequence[int], tokens: Sequence[int], cache: runtime.KeyValueCache) -> int:
    """How many first tokens of a text a cache holds; the last one is to be computed in any case."""
    most = min(len(ids) - 1, cache.tokens)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:most], tokens[:most], strict=False))
    return sum(1 for _ in same)
