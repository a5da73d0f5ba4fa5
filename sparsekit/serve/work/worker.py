"""What the workers of all models have: a budget of tokens, threads, a task that empties the queue."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from sparsekit.engine.tokenizing import Text
from sparsekit.serve.errors import invalid, too_large
from sparsekit.serve.limits import Limits
from sparsekit.serve.telemetry.metrics import Metrics
from sparsekit.serve.telemetry.record import Record
from sparsekit.serve.work.admission import Budget, Throughput
from sparsekit.serve.work.text_queue import TextQueue

T = TypeVar("T")
W = TypeVar("W")
LOG = logging.getLogger("sparsekit.serve")


class Worker(ABC, Generic[W]):
    """A model that answers requests of one event loop. The queue is the loop's alone; threads only compute.

    Args:
        name: the model's name.
        limits: limits of the server.
        metrics: metrics of the server.
        task: "embedding", "classification" or "language".
        max_tokens: most tokens of a text.
        vocabulary: number of tokens of the vocabulary.
        max_wait: longest wait of a text for others, in seconds.

    `is_ready` says whether the model has done real work.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        metrics: Metrics,
        *,
        task: str,
        max_tokens: int,
        vocabulary: int,
        max_wait: float,
    ) -> None:
        self.name = name
        self.task = task
        self.max_tokens = max_tokens
        self.is_ready = False
        self.throughput = Throughput()
        self.budget = Budget(limits.queue_tokens, "tokens", f"the queue of {name}", self.throughput)
        self.limits = limits
        self._metrics = metrics
        self._vocabulary = vocabulary
        self._queue = TextQueue[W](limits.batch_tokens, max_wait, time.perf_counter)
        self._changed = asyncio.Event()
        self._tokenizing = ThreadPoolExecutor(1, f"{name}-tokenizing")
        self._inference = ThreadPoolExecutor(1, f"{name}-inference")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to empty the queue; the model is ready once it has answered one request of the server's own."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        await self._warm_up()
        self.is_ready = True

    async def stop(self) -> None:
        """Stop; nothing may wait."""
        self.is_ready = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for threads in (self._tokenizing, self._inference):
            threads.shutdown(wait=False, cancel_futures=True)

    @abstractmethod
    async def _run(self) -> None:
        """Empty the queue, forever."""

    @abstractmethod
    async def _warm_up(self) -> None:
        """Answer one request."""

    def _note_queue(self) -> None:
        """Tell the metrics, and the task that empties the queue."""
        self._metrics.queue(self.name, self._queue.tokens, self.budget.held)
        self._changed.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.is_ready = False
        if not task.cancelled():
            LOG.critical("the worker of %s ended", self.name, exc_info=task.exception())

    async def _wait_for_change(self, seconds: float) -> None:
        """Wait until something is put or dropped, at most so long."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _tokenized(self, record: Record, tokenize: Callable[[], T]) -> T:
        """Tokenize in a thread, unless the queue is full already."""
        self.budget.check(1)
        start = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._tokenizing, tokenize)
        finally:
            record.tokenization = time.perf_counter() - start

    def _check_texts(self, texts: Sequence[Text]) -> None:
        """Refuse too many and too long texts, before they are tokenized."""
        self._check_count(len(texts))
        for number, text in enumerate(texts):
            size = sum(len(part.encode()) for part in ([text] if isinstance(text, str) else text))
            if size > self.limits.text_bytes:
                most = self.limits.text_bytes
                raise too_large(f"text {number} has {size:,} bytes, more than {most:,}; split it", param="input")

    def _check_ids(self, sequences: Sequence[Sequence[int]]) -> None:
        """Refuse token ids out of range, and texts without any."""
        self._check_count(len(sequences))
        for number, ids in enumerate(sequences):
            if not ids:
                raise invalid(f"text {number} has no tokens", param="input")
            if min(ids) < 0 or max(ids) >= self._vocabulary:
                raise invalid(f"tokens of text {number} must be from 0 to {self._vocabulary - 1}", param="input")

    def _check_count(self, count: int) -> None:
        if count > self.limits.texts:
            raise too_large(
                f"the request has {count:,} texts, more than {self.limits.texts:,}; split it", param="input"
            )
