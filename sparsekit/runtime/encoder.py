"""Run a whole encoder on numpy arrays, from a compiled model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_row, check_tokens
from sparsekit.runtime.threads import follow_torch_threads

#: Task whose output has a row for each token, see csrc/model/head.h.
_TOKEN_CLASSIFICATION = 2


class CompiledEncoder:
    """An encoder in the core. Threads may share it; calls release the GIL.

    Args:
        compiled: a compiled model, uint8, aligned to 64 bytes; it is referenced and must not change.

    `features` is the size of hidden states, `vocabulary` the vocabulary size, `max_tokens` the longest sequence,
    `types` the number of token types or 0, `task` the task's code in the compiled file, `outputs` the size of the
    outputs of `encode`, 0 if the model only has hidden states.

    Raises:
        ValueError: it is not a compiled encoder, or is damaged.
    """

    def __init__(self, compiled: NDArray[np.uint8]) -> None:
        self._compiled = compiled  # keeps it alive: the native encoder reads it in place
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
            ids: int32, shape [tokens]: tokens of all sequences, concatenated without padding.
            offsets: int64, shape [sequences + 1]: sequence `i` has the tokens `offsets[i]:offsets[i + 1]`.
            types: token types, int32, shape [tokens]; None for 0.

        Returns:
            float32, shape [tokens, features].

        Raises:
            TypeError: an array has another type.
            ValueError: a shape does not fit, or ids, types or lengths are out of range.
        """
        output = np.empty((ids.size, self.features), np.float32)
        self._native.run(*_placed(ids, offsets, types), output.ctypes.data)
        return output

    def encode(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64], types: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        """Run the model with its pooling or head: pooled vectors, or logits.

        Args:
            ids: as for `run`, like the others.
            offsets: likewise.
            types: likewise.

        Returns:
            float32, shape [sequences, outputs]; [tokens, outputs] for token classification.

        Raises:
            TypeError: an array has another type.
            ValueError: as `run`, or the model only has hidden states.
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
