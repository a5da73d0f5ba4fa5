"""Limits of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Limits of requests, of the queue of each model, and of the whole server.

    Args:
        queue_tokens: tokens that a model's queue holds, running texts included; of language models, with the tokens
            that may be generated. A request with more is refused at once, and so is one that finds no room.
        batch_tokens: tokens that a model computes together; a longer text is computed alone.
        max_wait_ms: how long a text may wait for others to fill a batch, in milliseconds.
        running_texts: texts that a language model generates at a time.
        texts: texts of a request.
        text_bytes: bytes of a text, in UTF-8.
        body_bytes: bytes of a request.
        bodies_bytes: bytes of all requests that are being answered.
        body_seconds: how long a client may take to send a request.
        drain_seconds: how long requests may take to end after SIGTERM.

    Raises:
        ValueError: a limit is below 1, or a time below 0.
    """

    queue_tokens: int = 131_072
    batch_tokens: int = 256
    max_wait_ms: float = 0.0
    running_texts: int = 8
    texts: int = 2048
    text_bytes: int = 1_000_000
    body_bytes: int = 8_000_000
    bodies_bytes: int = 64_000_000
    body_seconds: float = 30.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if isinstance(field.default, float) else 1
            if value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
