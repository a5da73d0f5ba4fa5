"""Group labeled tokens into spans, as transformers' token-classification pipeline does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Encoding

#: Aggregation of tokens: none; adjacent tokens with one label; adjacent words, labeled by their first token, by the
#: mean over their tokens or by their most certain token.
AGGREGATIONS = ("none", "simple", "first", "average", "max")
#: Label of tokens outside all spans.
_OUTSIDE = "O"


@dataclass(frozen=True)
class Span:
    """A labeled span: `text[start:end]`."""

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class _Piece:
    """A token, word or span with its label."""

    label: str
    score: float
    start: int
    end: int

    @property
    def begins(self) -> bool:
        return self.label.startswith("B-")

    @property
    def name(self) -> str:
        return self.label[2:] if self.label.startswith(("B-", "I-")) else self.label


def spans_of(
    text: str, encoding: Encoding, probabilities: NDArray[np.float32], names: Sequence[str], aggregation: str
) -> list[Span]:
    """The spans of a text.

    Args:
        text: the text.
        encoding: its tokens.
        probabilities: float32, shape [tokens, labels].
        names: names of the labels. "B-" begins a span, "I-" continues one; without prefixes,
            adjacent tokens with one label form a span.
        aggregation: one of `AGGREGATIONS`.
    """
    tokens = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    words = [[i] for i in tokens] if aggregation in ("none", "simple") else _words(encoding, tokens)
    pieces = [_piece(encoding, word, probabilities[word], names, aggregation) for word in words]
    if aggregation != "none":
        pieces = list(_joined(pieces))
    return [
        Span(piece.label, piece.score, piece.start, piece.end, text[piece.start : piece.end])
        for piece in pieces
        if piece.label != _OUTSIDE
    ]


def _words(encoding: Encoding, tokens: Sequence[int]) -> list[list[int]]:
    """Group tokens by word."""
    numbers = encoding.word_ids
    return [list(word) for _, word in groupby(tokens, key=lambda i: (numbers[i] is None and i, numbers[i]))]


def _piece(
    encoding: Encoding, tokens: Sequence[int], rows: NDArray[np.float32], names: Sequence[str], aggregation: str
) -> _Piece:
    if aggregation == "average":
        row = rows.mean(axis=0)
    elif aggregation == "max":
        row = rows[rows.max(axis=1).argmax()]
    else:
        row = rows[0]
    best = int(row.argmax())
    return _Piece(names[best], float(row[best]), encoding.offsets[tokens[0]][0], encoding.offsets[tokens[-1]][1])


def _joined(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """Merge adjacent pieces with one label; the score is their mean."""
    group: list[_Piece] = []
    for piece in pieces:
        if group and (piece.begins or piece.name != group[0].name):
            yield _whole(group)
            group = []
        group.append(piece)
    if group:
        yield _whole(group)


def _whole(group: Sequence[_Piece]) -> _Piece:
    score = float(np.mean([piece.score for piece in group]))
    return _Piece(group[0].name, score, group[0].start, group[-1].end)
