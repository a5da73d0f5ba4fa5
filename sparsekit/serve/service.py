"""What all routes share: the models, limits, metrics and the life of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsekit.serve.errors import RequestError, unavailable
from sparsekit.serve.lifecycle import Lifecycle
from sparsekit.serve.limits import Limits
from sparsekit.serve.telemetry.metrics import Metrics
from sparsekit.serve.telemetry.record import Record
from sparsekit.serve.work.admission import Budget
from sparsekit.serve.work.encoding import EncoderWorker
from sparsekit.serve.work.generating import GeneratorWorker
from sparsekit.serve.work.worker import Worker

#: Task -> what a model of this task does, for messages.
_DOES = {"embedding": "embeds texts", "classification": "classifies texts", "language": "generates texts"}


@dataclass
class Service:
    """A server, apart from HTTP.

    Args:
        workers: by the names of their models.
        limits: limits of the server.
        metrics: metrics, which the workers share.
        api_key: key that requests must give; None for none.
    """

    workers: Mapping[str, Worker[Any]]
    limits: Limits
    metrics: Metrics
    api_key: str | None = None
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.bodies = Budget(self.limits.bodies_bytes, "bytes", "the server")

    @property
    def is_ready(self) -> bool:
        """Whether every model has done work, and requests are taken."""
        return not self.lifecycle.is_draining and all(worker.is_ready for worker in self.workers.values())

    async def start(self) -> None:
        """Make the models ready."""
        await asyncio.gather(*(worker.start() for worker in self.workers.values()))

    async def stop(self) -> None:
        """Stop the models."""
        await asyncio.gather(*(worker.stop() for worker in self.workers.values()))

    def encoder(self, model: str | None, task: str, record: Record) -> EncoderWorker:
        """The worker of an encoder with a task.

        Raises:
            RequestError: there is no such model, it has another task, or is not ready.
        """
        worker = self._worker(model, task, record)
        assert isinstance(worker, EncoderWorker)  # noqa: S101 - its task says so
        return worker

    def generator(self, model: str | None, record: Record) -> GeneratorWorker:
        """As `encoder`, of a language model."""
        worker = self._worker(model, "language", record)
        assert isinstance(worker, GeneratorWorker)  # noqa: S101 - its task says so
        return worker

    def _worker(self, model: str | None, task: str, record: Record) -> Worker[Any]:
        names = ", ".join(self.workers)
        if model is None and len(self.workers) > 1:
            raise RequestError(422, f"give model=, one of {names}", "invalid_value", param="model")
        name = next(iter(self.workers)) if model is None else model
        worker = self.workers.get(name)
        if worker is None:
            raise RequestError(404, f"there is no model {name!r:.80}, only {names}", "model_not_found", param="model")
        record.model = name
        if worker.task != task:
            message = f"{name} {_DOES[worker.task]}, and this route wants a model that {_DOES[task]}"
            raise RequestError(400, message, "wrong_task", param="model")
        if not worker.is_ready:
            raise unavailable(f"{name} is not ready")
        return worker
