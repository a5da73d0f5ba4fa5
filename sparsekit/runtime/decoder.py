"""Whole decoders on numpy arrays, over a compiled model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_tokens
from sparsekit.runtime.threads import follow_torch_threads

#: Keys and values of one sequence: `tokens` of at most `capacity`. `truncate(count)` keeps the first ones, `copy(other,
#: count)` takes those of another one.
KeyValueCache = _C.KeyValueCache


class CompiledDecoder:
    """A decoder that runs in the core. Threads may share it, not caches; calls release the GIL.

    Args:
        compiled: a compiled model, uint8, at a multiple of 64 bytes; it is kept, and must not change.

    `vocabulary` is the number of token ids, `max_tokens` the most tokens of a sequence, `cache_bytes` what a cache
    keeps of a token.

    Raises:
        ValueError: it is no compiled model, one of another kind, or a damaged one.
    """

    def __init__(self, compiled: NDArray[np.uint8]) -> None:
        self._compiled = compiled  # the native decoder reads it in place
        self._native = _C.Decoder(compiled.ctypes.data, compiled.size)
        self.vocabulary = self._native.vocabulary
        self.max_tokens = self._native.max_tokens
        self.cache_bytes = self._native.cache_floats * np.dtype(np.float32).itemsize

    def make_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache with room for `capacity` tokens; it takes memory as tokens come.

        Raises:
            ValueError: the capacity is below 1, or more than there are addresses for.
        """
        return self._native.make_cache(capacity)

    def run(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        caches: Sequence[KeyValueCache],
        *,
        all_tokens: bool = False,
    ) -> NDArray[np.float32]:
        """Compute the next tokens of sequences; their caches hold them afterwards.

        Args:
            ids: int32, shape [tokens]: the new ones of all sequences, one after the other, without padding.
            offsets: int64, shape [sequences + 1]: sequence `i` has the tokens from `offsets[i]` to before
                `offsets[i + 1]`.
            caches: of each sequence, another one each.
            all_tokens: give the logits of every token, instead of those of the last of each sequence.

        Returns:
            Logits, float32, shape [sequences, vocabulary]; [tokens, vocabulary] of all tokens.

        Raises:
            TypeError: an array has another type.
            ValueError: a shape does not fit, the model has no such ids, or a cache no room for the tokens or another
                shape.
        """
        check_tokens(ids, offsets)
        if len(caches) != offsets.size - 1 or len({id(cache) for cache in caches}) != len(caches):
            raise ValueError(f"expected a cache of its own for each of {offsets.size - 1} sequences")
        follow_torch_threads()
        logits = np.empty((ids.size if all_tokens else len(caches), self.vocabulary), np.float32)
        self._native.run(ids.ctypes.data, offsets.ctypes.data, caches, all_tokens, logits.ctypes.data)
        return logits
