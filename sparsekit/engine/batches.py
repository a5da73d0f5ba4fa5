"""Concatenate token sequences without padding, as the core takes them, and cut them into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Tokens of a thread that the core computes together: csrc/model/workspace.h.
THREAD_TOKENS = 256


def batches_by_tokens(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of sequences, batch by batch, longest first.

    Args:
        lengths: tokens of each sequence.
        batch_tokens: largest number of tokens in a batch; a longer sequence gets a batch to itself.

    >>> list(batches_by_tokens([2, 5, 3, 1], 5))
    [[1], [2, 0], [3]]
    """
    batch: list[int] = []
    tokens = 0
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and tokens + lengths[number] > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(number)
        tokens += lengths[number]
    if batch:
        yield batch


def token_array(name: str, tokens: Any) -> NDArray[np.int32]:
    """Token ids or types of one sequence as int32, shape [tokens].

    Raises:
        TypeError: they are not integers.
        ValueError: they are not one-dimensional, or do not fit into int32.
    """
    given = np.asarray(tokens)
    if given.size == 0:
        return np.empty(0, np.int32)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {given.dtype}")
    if given.ndim != 1:
        raise ValueError(f"{name} must be a list of sequences of integers, got a sequence of shape {list(given.shape)}")
    if given.min() < 0 or given.max() > np.iinfo(np.int32).max:
        raise ValueError(f"{name} must be from 0 to 2^31 - 1, got {given.min()} to {given.max()}")
    return given.astype(np.int32, copy=False)


class Input(NamedTuple):
    """Concatenated token sequences, as the core takes them."""

    ids: NDArray[np.int32]  # [tokens]
    offsets: NDArray[np.int64]  # [sequences + 1]: start of each sequence, and the end
    types: NDArray[np.int32] | None  # as `ids`


def joined_input(ids: Sequence[Any], types: Sequence[Any] | None = None) -> Input:
    """Concatenate sequences.

    Args:
        ids: token ids of each sequence.
        types: token types of each sequence.

    Raises:
        TypeError: they are not integers.
        ValueError: a value is out of range, or a sequence has more or fewer types than ids.
    """
    sequences = [token_array("ids", sequence) for sequence in ids]
    offsets = offsets_of(sequences)
    if types is None:
        return Input(_joined(sequences), offsets, None)
    kinds = [token_array("types", sequence) for sequence in types]
    if not np.array_equal(offsets, offsets_of(kinds)):
        raise ValueError("types must have as many numbers for each sequence as ids")
    return Input(_joined(sequences), offsets, _joined(kinds))


def offsets_of(sequences: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """Start of each sequence in the concatenation, and the end of the last: [sequences + 1]."""
    offsets = np.zeros(len(sequences) + 1, np.int64)
    np.cumsum([sequence.size for sequence in sequences], out=offsets[1:])
    return offsets


def split_rows(rows: NDArray[np.float32], offsets: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Split rows by sequence."""
    return np.split(rows, offsets[1:-1]) if offsets.size > 1 else []


def _joined(sequences: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([np.empty(0, np.int32), *sequences])
