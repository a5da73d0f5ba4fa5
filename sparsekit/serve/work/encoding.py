"""The worker of an encoder: texts of many requests in one batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsekit.engine import Encoder
from sparsekit.engine.tokenizing import Text, Tokens
from sparsekit.serve.errors import RequestError, failed, invalid, too_large
from sparsekit.serve.limits import Limits
from sparsekit.serve.telemetry.metrics import Metrics
from sparsekit.serve.telemetry.record import Record
from sparsekit.serve.work.text_queue import QueuedText
from sparsekit.serve.work.worker import LOG, Worker


class _Work:
    """The texts of one request, on their way through batches."""

    def __init__(self, count: int) -> None:
        self.rows: list[NDArray[np.float32] | None] = [None] * count
        self.missing = count
        self.seconds = 0.0  # of its batches
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, number: int, row: NDArray[np.float32]) -> None:
        """The row of a text."""
        self.rows[number] = row
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: RequestError) -> None:
        """No answer."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True)
class _Waiting:
    work: _Work
    number: int  # of the text in its request
    tokens: Tokens


_Batch = Sequence[QueuedText[_Waiting]]


@dataclass(frozen=True)
class Encoded:
    """Outputs of the texts of a request."""

    rows: NDArray[np.float32]  # [texts, features or labels], finite
    tokens: Sequence[int]  # of each text
    truncated: Sequence[bool]


class EncoderWorker(Worker[_Waiting]):
    """Answers requests with an encoder.

    Args:
        name: the model's name.
        encoder: the model.
        limits: limits of the server.
        metrics: metrics of the server.
    """

    def __init__(self, name: str, encoder: Encoder, limits: Limits, metrics: Metrics) -> None:
        super().__init__(
            name,
            limits,
            metrics,
            task=encoder.task,
            max_tokens=encoder.max_tokens,
            vocabulary=encoder.vocabulary,
            max_wait=limits.max_wait_ms / 1e3,
        )
        self.encoder = encoder

    async def encode(self, texts: Sequence[Text], record: Record, *, truncate: bool) -> Encoded:
        """Compute texts.

        Args:
            texts: texts, or pairs of texts.
            record: takes the times.
            truncate: cut what is longer than the model takes, instead of refusing it.

        Raises:
            RequestError: a limit is exceeded, the queue is full, or the engine failed.
        """
        self._check_texts(texts)
        tokens = await self._tokenized(record, lambda: self.encoder.tokenize(texts))
        for number, one in enumerate(tokens):
            if one.truncated and not truncate:
                raise too_large(f"text {number} has more than the {one.ids.size} tokens that {self.name} takes; split "
                                "it, or give truncate=true", param="input")  # fmt: skip
        return await self._computed(tokens, record)

    async def encode_ids(self, sequences: Sequence[Sequence[int]], record: Record) -> Encoded:
        """Compute token ids, with special tokens, as `encode` does texts."""
        self._check_ids(sequences)
        longest = max(map(len, sequences))
        if longest > self.max_tokens:
            raise too_large(f"{longest:,} tokens in a text, more than {self.max_tokens:,}", param="input")
        arrays = [np.asarray(ids, np.int32) for ids in sequences]
        return await self._computed([Tokens(ids, np.zeros_like(ids)) for ids in arrays], record)

    async def _computed(self, tokens: Sequence[Tokens], record: Record) -> Encoded:
        sizes = [one.ids.size for one in tokens]
        if not all(sizes):
            raise invalid(f"text {sizes.index(0)} has no tokens", param="input")
        record.tokens = sum(sizes)
        self.budget.take(record.tokens)
        start = time.perf_counter()
        work = _Work(len(tokens))
        queued = self._queue.put([(_Waiting(work, i, one), one.ids.size) for i, one in enumerate(tokens)])
        self._note_queue()
        try:
            await work.done
        finally:
            self._queue.drop(queued)
            self.budget.give_back(record.tokens)
            self._note_queue()
            record.inference = work.seconds
            record.queue = max(0.0, time.perf_counter() - start - work.seconds)
        return Encoded(np.stack([row for row in work.rows if row is not None]), sizes, [t.truncated for t in tokens])

    async def _run(self) -> None:
        while True:
            seconds = self._queue.seconds_to_next()
            if seconds > 0:
                await self._wait_for_change(seconds)
            else:
                await self._compute(self._queue.take())

    async def _compute(self, batch: _Batch) -> None:
        """Compute a batch; if the engine fails, request by request, so that the others are answered."""
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        tokens = [text.content.tokens for text in batch]
        works = {text.content.work: None for text in batch}
        try:
            rows = await loop.run_in_executor(self._inference, self.encoder.outputs, tokens)
            self._deliver(batch, rows, time.perf_counter() - start)
        except Exception as error:  # noqa: BLE001 - whatever a batch ends with must not end the server
            if len(works) == 1:
                LOG.error("%s failed", self.name, exc_info=error)
                batch[0].content.work.fail(failed(f"{self.name} failed to compute the request"))
                return
            for work in works:
                await self._compute([text for text in batch if text.content.work is work])

    def _deliver(self, batch: _Batch, rows: NDArray[np.float32], seconds: float) -> None:
        count = sum(text.tokens for text in batch)
        self.throughput.note(count, seconds)
        self._metrics.batch(self.name, count, seconds)
        for work in {text.content.work: None for text in batch}:
            work.seconds += seconds
        for text, row in zip(batch, rows, strict=True):
            if np.isfinite(row).all():
                text.content.work.add(text.content.number, row)
            else:
                message = f"{self.name} gives text {text.content.number} numbers that are not finite"
                text.content.work.fail(failed(message))

    async def _warm_up(self) -> None:
        await self.encode(["warm-up"], Record(), truncate=True)
