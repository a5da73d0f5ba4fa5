"""Metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from sparsekit.serve.telemetry.record import Record

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TOKENS = tuple(2.0**power for power in range(14))


class Metrics:
    """Metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry, "namespace": "sparsekit"}
        self._requests = Counter("requests", "Requests.", ["route", "model", "status", "outcome"], **made)
        self._stages = Histogram(
            "request_seconds",
            "Seconds of answered requests, by stage.",
            ["model", "stage"],
            buckets=_SECONDS,
            **made,
        )
        self._tokens = Counter("tokens", "Tokens of answered requests.", ["model"], **made)
        self._batch_tokens = Histogram("batch_tokens", "Tokens of a batch.", ["model"], buckets=_TOKENS, **made)
        self._batch_seconds = Histogram("batch_seconds", "Seconds of a batch.", ["model"], buckets=_SECONDS, **made)
        self._queue_tokens = Gauge("queue_tokens", "Tokens that wait.", ["model"], **made)
        self._held_tokens = Gauge("held_tokens", "Tokens that wait or run.", ["model"], **made)

    def request(self, status: int, record: Record) -> None:
        """Count a request that ended."""
        outcome = record.outcome or ("ok" if status < 400 else "refused" if status < 500 else "failed")
        self._requests.labels(record.route, record.model, str(status), outcome).inc()
        if status == 200 and record.model:
            self._tokens.labels(record.model).inc(record.tokens)
            for stage in ("total", "tokenization", "queue", "inference"):
                self._stages.labels(record.model, stage).observe(getattr(record, stage))

    def batch(self, model: str, tokens: int, seconds: float) -> None:
        """Count a batch that was computed."""
        self._batch_tokens.labels(model).observe(tokens)
        self._batch_seconds.labels(model).observe(seconds)

    def queue(self, model: str, waiting: int, held: int) -> None:
        """Note how much waits, and how much waits or runs."""
        self._queue_tokens.labels(model).set(waiting)
        self._held_tokens.labels(model).set(held)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
