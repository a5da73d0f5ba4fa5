"""Perplexity of a language model, as in recipes of the task `language`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit.progress import Progress

Logits: TypeAlias = Callable[[Sequence[NDArray[np.int32]]], list[NDArray[np.float32]]]
#: Tokens per window by default, as in recipes.
WINDOW = 128


def windows(texts: Iterable[Sequence[int]], end: int | None, tokens: int) -> NDArray[np.int32]:
    """Windows over the concatenated texts, each followed by the end token; an incomplete last one is dropped.

    Args:
        texts: token ids.
        end: end token; None to append none.
        tokens: tokens per window, at least two.

    Returns:
        int32, shape [windows, tokens].

    Raises:
        ValueError: the texts do not fill one window.

    >>> windows([[1, 2], [3]], 0, 2).tolist()
    [[1, 2], [0, 3]]
    """
    stream = [token for ids in texts for token in (ids if end is None else [*ids, end])]
    count = len(stream) // tokens
    if not count:
        raise ValueError(f"the texts have {len(stream)} tokens, fewer than one window of {tokens}")
    return np.array(stream[: count * tokens], np.int32).reshape(count, tokens)


def cross_entropies(logits: NDArray[np.float32], following: NDArray[np.int32]) -> NDArray[np.float64]:
    """Cross-entropy of each token.

    Args:
        logits: float32, shape [tokens, vocabulary].
        following: int32, shape [tokens].

    Returns:
        float64, shape [tokens].
    """
    largest = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - largest).sum(axis=1, dtype=np.float64)) + largest[:, 0]
    losses: NDArray[np.float64] = total - logits[np.arange(len(following)), following]
    return losses


def perplexity(logits: Logits, found: NDArray[np.int32], *, show_progress: bool = False) -> float:
    """Exponential of the mean cross-entropy over all tokens but the first of each window.

    Args:
        logits: computes logits of sequences, float32, shape [tokens, vocabulary] each.
        found: int32, shape [windows, tokens].
        show_progress: show a bar on standard error.
    """
    losses = []
    for ids in Progress(list(found), title="score", unit="windows", total=len(found), hidden=not show_progress):
        (rows,) = logits([ids])
        losses.append(cross_entropies(rows[:-1], ids[1:]))
    return float(np.exp(np.concatenate(losses).mean()))
