"""Whole encoders on numpy arrays, over a compiled model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_row, check_tokens
from sparsekit.runtime.threads import follow_torch_threads

#: The task whose output has a row for each token: csrc/model/head.h.
_TOKEN_CLASSIFICATION = 2


class CompiledEncoder:
    """An encoder that runs in the core. Threads may share it; calls release the GIL.

    Args:
        compiled: a compiled model, uint8, at a multiple of 64 bytes; it is kept, and must not change.

    `features` are those of a hidden state, `vocabulary` the number of token ids, `max_tokens` the most tokens of a
    sequence, `types` the number of token types, or 0; `task` is a number of the compiled file, `outputs` are the
    features of what `encode` gives, 0 where the model gives hidden states alone.

    Raises:
        ValueError: it is no compiled model, or a damaged one.
    """

    def __init__(self, compiled: NDArray[np.uint8]) -> None:
        self._compiled = compiled  # the native encoder reads it in place
        self._native = _C.Encoder(compiled.ctypes.data, compiled.size)
        self.features = self._native.features
        self.vocabulary = self._native.vocabulary
        self.max_tokens = self._native.max_tokens
        self.types = self._native.types
        self.task = self._native.task
        self.outputs = self._native.outputs
        self._rows_are_tokens = self.task == _TOKEN_CLASSIFICATION

    def run(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], types: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        """Hidden states of the last layer.

        Args:
            ids: int32, shape [tokens]: those of all sequences, one after the other, without padding.
            offsets: int64, shape [sequences + 1]: sequence `i` has the tokens from `offsets[i]` to before
                `offsets[i + 1]`.
            types: token types, as `ids`; 0 if None.

        Returns:
            float32, shape [tokens, features].

        Raises:
            TypeError: an array has another type.
            ValueError: a shape does not fit, or the model has no such ids, types or sequences.
        """
        output = np.empty((ids.size, self.features), np.float32)
        self._native.run(*_placed(ids, offsets, types), output.ctypes.data)
        return output

    def encode(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], types: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        """What the model gives besides hidden states: vectors, pooled and normalized as it says, or logits.

        Args:
            ids: as for `run`, like the others.
            offsets: likewise.
            types: likewise.

        Returns:
            float32, shape [sequences, outputs]; [tokens, outputs] where each token has logits.

        Raises:
            TypeError: an array has another type.
            ValueError: as `run`; or the model gives hidden states alone.
        """
        rows = ids.size if self._rows_are_tokens else max(0, offsets.size - 1)
        output = np.empty((rows, self.outputs), np.float32)
        self._native.encode(*_placed(ids, offsets, types), output.ctypes.data)
        return output


def _placed(
    ids: NDArray[np.int32], offsets: NDArray[np.int64], types: NDArray[np.int32] | None
) -> tuple[int, int, int, int]:
    """Addresses of ids, types and offsets, and the number of sequences."""
    check_tokens(ids, offsets)
    if types is not None:
        check_row("types", types, np.int32)
        if types.shape != ids.shape:
            raise ValueError(f"types must have the shape of ids, {list(ids.shape)}, got {list(types.shape)}")
    follow_torch_threads()
    return ids.ctypes.data, 0 if types is None else types.ctypes.data, offsets.ctypes.data, offsets.size - 1
