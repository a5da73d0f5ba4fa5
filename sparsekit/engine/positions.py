"""Tables of relative biases and rotary position embeddings, computed when a model is compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Buckets of distances, half for each direction: one for each distance up to `_SINGLE`, then two per doubling.
BUCKETS, _SINGLE = 32, 8


def distance_biases(buckets: NDArray[np.float32], tokens: int) -> NDArray[np.float32]:
    """Relative attention biases for every distance, from those of distance buckets (T5, MPNet).

    Args:
        buckets: float32, shape [32, heads]: keys at or before the query, then keys after it.
        tokens: of the longest sequence.

    Returns:
        float32, shape [heads, 2 * tokens - 1]: index `i - j + tokens - 1` is for query `i` and key `j`.
    """
    distances = np.arange(tokens - 1, -tokens, -1)  # j - i
    far = np.abs(distances)
    _, exponents = np.frexp((far * far).astype(np.float64))
    side = np.where(far < _SINGLE, far, np.minimum(exponents + 1, BUCKETS // 2 - 1))  # 8 + floor(2 * log2(far / 8))
    return np.ascontiguousarray(buckets[side + BUCKETS // 2 * (distances > 0)].T)


def distance_rows(tokens: int, span: int, buckets: int, farthest: int) -> NDArray[np.int64]:
    """Row of the relative embeddings for each distance, rounded as in transformers (DeBERTa-v2).

    Args:
        tokens: length of the longest sequence.
        span: half the number of rows.
        buckets: number of buckets, the nearer half of which hold one distance each; 0 for no bucketing.
        farthest: largest distance that buckets distinguish.

    Returns:
        int64, shape [2 * tokens - 1], from 0 to `2 * span - 1`: index `i - j + tokens - 1` is for query `i` and key
        `j`.
    """
    distances = np.arange(1 - tokens, tokens)  # i - j
    if buckets > 0:
        distances = _log_buckets(distances, buckets // 2, farthest)
    return np.clip(distances + span, 0, 2 * span - 1)


def _log_buckets(distances: NDArray[np.int64], single: int, farthest: int) -> NDArray[np.int64]:
    """Logarithmic buckets: one for each distance up to `single`, then `single` more up to `farthest`."""
    far = np.maximum(np.abs(distances), single)
    logarithms = np.log(far.astype(np.float32) / np.float32(single)) / np.log(np.float32((farthest - 1) / single))
    beyond = np.ceil(logarithms * np.float32(single - 1)).astype(np.int64) + single
    return np.where(far <= single, distances, np.sign(distances) * beyond)


def rotary_frequencies(base: float, dims: int) -> NDArray[np.float32]:
    """Frequencies of rotary position embeddings: angle increments per position, rounded as in transformers.

    Args:
        base: frequency `f` is `1 / base ** (2 f / dims)`.
        dims: number of rotated features per head.

    Returns:
        float32, shape [dims / 2], rounded up.
    """
    exponents = np.arange(0, dims, 2, dtype=np.float32) / np.float32(dims)
    return np.float32(1) / np.float32(base) ** exponents


def rotary_table(frequencies: NDArray[np.float32], positions: int, factor: float = 1.0) -> NDArray[np.float32]:
    """Cosines and sines of rotary position embeddings, rounded as in transformers.

    Args:
        frequencies: angle `f` of position `p` is `p * frequencies[f]`.
        positions: number of rows.
        factor: scale of the cosines and sines.

    Returns:
        float32, shape [positions, 2 * frequencies]: cosines, then sines.
    """
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * np.float32(factor)
