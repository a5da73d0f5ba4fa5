"""Run a whole decoder on numpy arrays, from a compiled model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_tokens
from sparsekit.runtime.threads import follow_torch_threads

#: Key-value cache of one sequence, with `tokens` of at most `capacity` tokens. `truncate(count)` keeps the first ones,
#: `copy(other, count)` copies the first ones of another cache.
KeyValueCache = _C.KeyValueCache


def check_cache_dtype(dtype: str) -> None:
    """Check the type of a key-value cache.

    Raises:
        ValueError: it is not "float32", "bfloat16" or "int8".
    """
    _C.check_cache_dtype(dtype)


class CompiledDecoder:
    """A decoder in the core. Threads may share it, but not caches; calls release the GIL.

    Args:
        compiled: a compiled model, uint8, aligned to 64 bytes; it is referenced and must not change.

    `vocabulary` is the vocabulary size, `max_tokens` the longest sequence.

    Raises:
        ValueError: it is not a compiled decoder, or is damaged.
    """

    def __init__(self, compiled: NDArray[np.uint8]) -> None:
        self._compiled = compiled  # keeps it alive: the native decoder reads it in place
        self._native = _C.Decoder(compiled.ctypes.data, compiled.size)
        self.vocabulary = self._native.vocabulary
        self.max_tokens = self._native.max_tokens

    def cache_bytes(self, dtype: str = "float32") -> int:
        """Bytes of a cache per token: keys and values of all layers, with scales in int8.

        Raises:
            ValueError: the type is unknown.
        """
        return self._native.cache_bytes(dtype)

    def make_cache(self, capacity: int, dtype: str = "float32") -> KeyValueCache:
        """Create an empty cache, whose memory is committed as tokens are added.

        Args:
            capacity: largest number of tokens.
            dtype: type of keys and values: "float32", "bfloat16", or "int8" with a scale for each head and token.

        Raises:
            ValueError: the capacity is below 1 or exceeds the address space, or the type is unknown.
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
        """Run the model on new tokens of sequences, and append them to the caches.

        Args:
            ids: int32, shape [tokens]: new tokens of all sequences, concatenated without padding.
            offsets: int64, shape [sequences + 1]: sequence `i` has the tokens `offsets[i]:offsets[i + 1]`.
            caches: a cache for each sequence, all different.
            all_tokens: return logits of every token instead of the last one of each sequence.

        Returns:
            Logits, float32, shape [sequences, vocabulary]; [tokens, vocabulary] with `all_tokens`.

        Raises:
            TypeError: an array has a wrong type.
            ValueError: a shape does not fit, ids are out of range, or a cache is full or of another model.
        """
        check_tokens(ids, offsets)
        if len(caches) != offsets.size - 1 or len({id(cache) for cache in caches}) != len(caches):
            raise ValueError(f"expected a cache of its own for each of {offsets.size - 1} sequences")
        follow_torch_threads()
        logits = np.empty((ids.size if all_tokens else len(caches), self.vocabulary), np.float32)
        self._native.run(ids.ctypes.data, offsets.ctypes.data, caches, all_tokens, logits.ctypes.data)
        return logits
