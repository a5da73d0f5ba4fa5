"""The queue of a model: which texts, of which requests, are computed together and when."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds that a text falls behind for each token of its request up to its own last. A request of 20 tokens overtakes
#: one of 10,000 that came up to 10 seconds before, and none that came earlier: nothing starves.
_SECONDS_PER_TOKEN = 1e-3
#: Texts that have left, beyond as many as wait, that the queue still refers to.
_MOST_LEFT = 64


@dataclass(eq=False, slots=True)
class QueuedText(Generic[T]):
    """A text in the queue."""

    content: T
    tokens: int
    arrival: float  # seconds of the clock
    place: float  # arrival, and how far the text falls behind
    left: bool = False  # taken or dropped


class TextQueue(Generic[T]):
    """Texts that wait, and the policy that batches them by tokens.

    A batch leaves when the texts fill it or the oldest has waited long enough. Texts leave by their place: short
    requests before the rest of long ones, each in the order in which it came.

    Args:
        batch_tokens: tokens of a batch; a longer text leaves alone.
        max_wait: longest wait for others, in seconds.
        clock: gives the time in seconds.

    `tokens` is the number that waits.
    """

    def __init__(self, batch_tokens: int, max_wait: float, clock: Callable[[], float]) -> None:
        self.tokens = 0
        self._batch_tokens = batch_tokens
        self._max_wait = max_wait
        self._clock = clock
        self._count = 0  # of texts so far: among equals, the first leaves first
        self._waiting = 0
        self._by_place: list[tuple[float, int, QueuedText[T]]] = []
        self._by_arrival: deque[QueuedText[T]] = deque()

    def put(self, texts: Sequence[tuple[T, int]]) -> list[QueuedText[T]]:
        """Add the texts of a request.

        Args:
            texts: each with its number of tokens.
        """
        now = self._clock()
        place = now
        queued = []
        for content, tokens in texts:
            place += tokens * _SECONDS_PER_TOKEN
            queued.append(QueuedText(content, tokens, now, place))
        for text in queued:
            self._count += 1
            heapq.heappush(self._by_place, (text.place, self._count, text))
            self.tokens += text.tokens
        self._by_arrival.extend(queued)
        self._waiting += len(queued)
        return queued

    def drop(self, texts: Iterable[QueuedText[T]]) -> None:
        """Forget those texts that still wait."""
        for text in texts:
            self._leave(text)
        if len(self._by_place) > 2 * self._waiting + _MOST_LEFT:
            self._by_place = [entry for entry in self._by_place if not entry[2].left]
            heapq.heapify(self._by_place)
            self._by_arrival = deque(text for text in self._by_arrival if not text.left)

    def seconds_to_next(self) -> float:
        """Seconds until a batch leaves: 0 for now, infinity if nothing waits."""
        while self._by_arrival and self._by_arrival[0].left:
            self._by_arrival.popleft()
        if not self._by_arrival:
            return math.inf
        if self.tokens >= self._batch_tokens:
            return 0.0
        return max(0.0, self._by_arrival[0].arrival + self._max_wait - self._clock())

    def take(self, most: int | None = None) -> list[QueuedText[T]]:
        """Take the next batch, of at most `most` texts."""
        batch: list[QueuedText[T]] = []
        room = self._batch_tokens
        while (text := self._first()) is not None and len(batch) != most and (not batch or text.tokens <= room):
            batch.append(text)
            room -= text.tokens
            self._leave(text)
        return batch

    def _first(self) -> QueuedText[T] | None:
        while self._by_place and self._by_place[0][2].left:
            heapq.heappop(self._by_place)
        return self._by_place[0][2] if self._by_place else None

    def _leave(self, text: QueuedText[T]) -> None:
        if not text.left:
            text.left = True
            self.tokens -= text.tokens
            self._waiting -= 1
