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


def check_cache_dtype(dtype: str) -> None:
    """Refuse a type that caches do not have.

    Raises:
        ValueError: it is another one than "float32", "bfloat16" and "int8".
    """
    _C.check_cache_dtype(dtype)


class CompiledDecoder:
    """A decoder that runs in the core. Threads may share it, not caches; calls release the GIL.

    Args:
        compiled: a compiled model, uint8, at a multiple of 64 bytes; it is kept, and must not change.

    `vocabulary` is the number of token ids, `max_tokens` the most tokens of a sequence.

    Raises:
        ValueError: it is no compiled model, one of another kind, or a damaged one.
    """

    def __init__(self, compiled: NDArray[np.uint8]) -> None:
        self._compiled = compiled  # the native decoder reads it in place
        self._native = _C.Decoder(compiled.ctypes.data, compiled.size)
        self.vocabulary = self._native.vocabulary
        self.max_tokens = self._native.max_tokens

    def cache_bytes(self, dtype: str = "float32") -> int:
        """Bytes that a cache takes of a token: keys and values of all layers, of int8 with their scales.

        Raises:
            ValueError: caches do not have this type.
        """
        return self._native.cache_bytes(dtype)

    def make_cache(self, capacity: int, dtype: str = "float32") -> KeyValueCache:
        """An empty cache; it takes memory as tokens come.

        Args:
            capacity: tokens that it has room for.
            dtype: of its keys and values: "float32", "bfloat16", or "int8" with a scale for each head and token.

        Raises:
            ValueError: the capacity is below 1, or more than there are addresses for; caches do not have this type.
        """
        return self._native.make_cache(capacity, dtype)

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
