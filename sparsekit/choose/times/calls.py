"""What a model is called with, and the groups of tokens that the engine computes together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from sparsekit.engine.batches import THREAD_TOKENS


@dataclass(frozen=True)
class Call:
    """Texts that a model computes in one call, all as long.

    Attributes:
        texts: their number.
        tokens: new ones of each text.
        past: tokens of each text before them, which a decoder's cache holds.

    Raises:
        ValueError: there are no texts or tokens, or fewer than none in the cache.

    >>> str(Call(16, 128)), str(Call(1, 1, past=128))
    ('16x128', '1x1 after 128')
    """

    texts: int
    tokens: int
    past: int = 0

    def __post_init__(self) -> None:
        if self.texts < 1 or self.tokens < 1 or self.past < 0:
            raise ValueError(f"a call must have at least one text and one new token of each, got {self}")

    def __str__(self) -> str:
        """As tables have it."""
        return f"{self.texts}x{self.tokens}" + (f" after {self.past}" if self.past else "")


class Group(NamedTuple):
    """Tokens that go through a model's layers together."""

    tokens: int
    texts: int  # that end among them


def groups_of(call: Call, threads: int, *, cuts_texts: bool) -> Counter[Group]:
    """The groups of a call, and how often each comes: `THREAD_TOKENS` a thread.

    Args:
        call: of the model.
        threads: in use.
        cuts_texts: whether a text may lie in several groups, as a decoder's does.

    >>> groups_of(Call(5, 100), 1, cuts_texts=False)
    Counter({Group(tokens=200, texts=2): 2, Group(tokens=100, texts=1): 1})
    >>> groups_of(Call(1, 600), 1, cuts_texts=True)
    Counter({Group(tokens=256, texts=0): 2, Group(tokens=88, texts=1): 1})
    """
    most = THREAD_TOKENS * threads
    if not cuts_texts:
        most = max(1, most // call.tokens) * call.tokens
    total = call.texts * call.tokens
    ends = [min(start + most, total) for start in range(0, total, most)]
    starts = [0, *ends[:-1]]
    return Counter(
        Group(end - start, end // call.tokens - start // call.tokens) for start, end in zip(starts, ends, strict=True)
    )
