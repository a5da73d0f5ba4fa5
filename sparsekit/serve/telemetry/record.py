"""Facts about one request: for its headers, the access log and metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Record:
    """What is known of a request so far; seconds."""

    route: str = "other"  # path of the route
    model: str = ""
    tokens: int = 0  # computed: of the texts, and generated ones
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    outcome: str = ""  # where the status does not say it: "disconnected", "failed"
    start: float = field(default_factory=time.perf_counter)

    @property
    def total(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self.start

    def headers(self) -> dict[str, str]:
        """Times in milliseconds, by the names of text-embeddings-inference."""
        return {
            "x-total-time": f"{1e3 * self.total:.3f}",
            "x-tokenization-time": f"{1e3 * self.tokenization:.3f}",
            "x-queue-time": f"{1e3 * self.queue:.3f}",
            "x-inference-time": f"{1e3 * self.inference:.3f}",
            "x-compute-tokens": str(self.tokens),
        }
