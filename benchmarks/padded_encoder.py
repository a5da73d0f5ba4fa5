"""Embed texts with an engine that needs padded batches, as its users would. Imports neither torch nor sparsekit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer


class PaddedEncoder:
    """Tokenizes, sorts texts by length, pads each batch to its longest, takes the mean over tokens, normalizes.

    Args:
        hidden: last hidden state [texts, tokens, features] of ids and mask, int64, [texts, tokens].
        tokenizer: tokenizer.json.
        most_tokens: to which texts are truncated.
        batch: most texts of a batch; that of sentence-transformers.
    """

    def __init__(self, hidden: Callable[[Any, Any], Any], tokenizer: Path, most_tokens: int, batch: int = 32) -> None:
        self.hidden, self.batch = hidden, batch
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(most_tokens)
        self.tokenizer.no_padding()

    def __call__(self, texts: Sequence[str]) -> Any:
        """One vector for each text, float32 [texts, features]."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        longest_first = sorted(range(len(ids)), key=lambda number: -len(ids[number]))
        vectors: list[Any] = [None] * len(ids)
        for start in range(0, len(ids), self.batch):
            numbers = longest_first[start : start + self.batch]
            for number, vector in zip(numbers, self._vectors([ids[number] for number in numbers]), strict=True):
                vectors[number] = vector
        return np.stack(vectors)

    def _vectors(self, sequences: list[list[int]]) -> Any:
        longest = max(map(len, sequences))
        mask = np.arange(longest) < np.array([[len(sequence)] for sequence in sequences])
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(sequences)
        hidden = self.hidden(ids, mask.astype(np.int64))
        means = np.einsum("btf,bt->bf", hidden, mask.astype(np.float32)) / mask.sum(1, keepdims=True)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def onnxruntime_encoder(model: Path, tokenizer: Path, most_tokens: int, threads: int) -> PaddedEncoder:
    """ONNX Runtime with a model for inputs of any size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def hidden(ids: Any, mask: Any) -> Any:
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return PaddedEncoder(hidden, tokenizer, most_tokens)
