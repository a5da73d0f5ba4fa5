"""The worker of a language model: texts of many requests are decoded together, and join and leave between tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sparsekit.engine import Completion, Generator
from sparsekit.engine.continuous_batching import Batch, RunningText
from sparsekit.serve.errors import RequestError, failed, invalid, too_large
from sparsekit.serve.limits import Limits
from sparsekit.serve.telemetry.metrics import Metrics
from sparsekit.serve.telemetry.record import Record
from sparsekit.serve.work.worker import LOG, Worker


class Piece(NamedTuple):
    """What a token adds to a text."""

    number: int  # of the prompt in its request
    text: str  # may be empty
    finish: str  # why the text ended with it; "" if it goes on
    completion: Completion  # so far, which a thread may be extending


@dataclass(eq=False)
class _Work:
    """The texts of one request."""

    events: asyncio.Queue[Piece | RequestError] = field(default_factory=asyncio.Queue)
    started: float = 0.0  # when its first text joined the batch
    is_gone: bool = False


@dataclass(frozen=True)
class _Waiting:
    work: _Work
    number: int
    text: RunningText


class GeneratorWorker(Worker[_Waiting]):
    """Answers requests with a language model.

    Args:
        name: the model's name.
        generator: the model.
        limits: limits of the server.
        metrics: metrics of the server.
    """

    def __init__(self, name: str, generator: Generator, limits: Limits, metrics: Metrics) -> None:
        super().__init__(
            name,
            limits,
            metrics,
            task="language",
            max_tokens=generator.context,
            vocabulary=generator.vocabulary,
            max_wait=0.0,
        )
        self.generator = generator
        self._running: dict[RunningText, _Waiting] = {}

    async def tokenize(self, prompts: Sequence[str], record: Record) -> list[list[int]]:
        """Token ids of prompts, with special tokens."""
        self._check_texts(prompts)
        return await self._tokenized(record, lambda: [self.generator.prompts.tokenize(one) for one in prompts])

    async def tokenize_chat(self, messages: Sequence[dict[str, str]], record: Record) -> list[int]:
        """Token ids of a chat.

        Raises:
            RequestError: there is no chat template, or it refuses the messages.
        """
        self._check_texts([one["content"] for one in messages])
        try:
            return await self._tokenized(record, lambda: self.generator.prompts.tokenize_chat(messages))
        except ValueError as error:
            raise invalid(str(error), param="messages") from error

    async def generate(
        self,
        prompts: Sequence[Sequence[int]],
        record: Record,
        *,
        max_new_tokens: int | None,
        default: int,
        **options: Any,
    ) -> AsyncGenerator[Piece, None]:
        """Continue prompts. Closing the iterator, or canceling, ends the texts.

        Args:
            prompts: token ids of each.
            record: takes the times.
            max_new_tokens: limit of tokens of each text; None for `default`, or what the context leaves.
            default: see there.
            options: see `Generator.prepare`.

        Raises:
            RequestError: a limit is exceeded, the queue is full, an option is wrong, or the engine failed.
        """
        count = self._checked_count(prompts, max_new_tokens, default)
        work = _Work()
        waiting = self._prepared(work, prompts, count, options)
        held = sum(map(len, prompts)) + count * len(prompts)
        self.budget.take(held)
        start = time.perf_counter()
        queued = self._queue.put([(one, len(one.text.ids)) for one in waiting])
        self._note_queue()
        try:
            unfinished = len(waiting)
            while unfinished:
                event = await work.events.get()
                if isinstance(event, RequestError):
                    raise event
                unfinished -= bool(event.finish)
                _note(record, start, work, waiting)
                yield event
        finally:
            work.is_gone = True
            self._queue.drop(queued)
            self.budget.give_back(held)
            self._note_queue()

    def _checked_count(self, prompts: Sequence[Sequence[int]], asked: int | None, default: int) -> int:
        """How many tokens each text may get."""
        self._check_ids(prompts)
        longest, new, context = max(map(len, prompts)), asked or 1, self.max_tokens
        if longest + new > context:
            raise too_large(f"{self.name} has a context of {context:,} tokens, and the request asks for a prompt of "
                            f"{longest:,} and {new:,} new ones; shorten it, or ask for fewer")  # fmt: skip
        return asked or min(default, context - longest)

    def _prepared(
        self, work: _Work, prompts: Sequence[Sequence[int]], count: int, options: dict[str, Any]
    ) -> list[_Waiting]:
        try:
            texts = [self.generator.prepare(ids, max_new_tokens=count, **options) for ids in prompts]
        except (TypeError, ValueError) as error:
            raise invalid(str(error)) from error
        return [_Waiting(work, number, text) for number, text in enumerate(texts)]

    async def _run(self) -> None:
        batch = self.generator.batch(self.limits.running_texts)
        while True:
            self._leave(batch, lambda one: one.work.is_gone)
            self._join(batch)
            if len(batch):
                await self._step(batch)
            else:
                await self._wait_for_change(self._queue.seconds_to_next())

    def _join(self, batch: Batch) -> None:
        for queued in self._queue.take(self.limits.running_texts - len(batch)):
            one = queued.content
            one.work.started = one.work.started or time.perf_counter()
            self._running[one.text] = one
            batch.add(one.text)

    def _leave(self, batch: Batch, leaves: Callable[[_Waiting], bool]) -> list[_Waiting]:
        gone = [one for one in self._running.values() if leaves(one)]
        for one in gone:
            batch.drop(one.text)
            del self._running[one.text]
        return gone

    async def _step(self, batch: Batch) -> None:
        start = time.perf_counter()
        try:
            pieces = await asyncio.get_running_loop().run_in_executor(self._inference, batch.step)
            for text, piece in pieces:
                self._deliver(text, piece)
        except Exception as error:  # noqa: BLE001 - whatever a step ends with must not end the server
            LOG.error("%s failed", self.name, exc_info=error)
            for one in self._leave(batch, lambda _: True):
                one.work.events.put_nowait(failed(f"{self.name} failed to compute the request"))
        else:
            seconds = time.perf_counter() - start
            self.throughput.note(len(pieces), seconds)
            self._metrics.batch(self.name, len(pieces), seconds)

    def _deliver(self, text: RunningText, piece: str) -> None:
        one = self._running[text]
        if text.completion.finish:
            del self._running[text]
        if text.error is not None:
            one.work.events.put_nowait(failed(f"{self.name}: {text.error}"))
        else:
            one.work.events.put_nowait(Piece(one.number, piece, text.completion.finish, text.completion))

    async def _warm_up(self) -> None:
        await self.tokenize(["warm-up"], Record())
        async for _ in self.generate([[0]], Record(), max_new_tokens=1, default=1):
            pass


def _note(record: Record, start: float, work: _Work, waiting: Sequence[_Waiting]) -> None:
    record.queue = work.started - start
    record.inference = time.perf_counter() - work.started
    done = [one.text.completion for one in waiting]
    record.tokens = sum(one.prompt_tokens + len(one.tokens) for one in done)
