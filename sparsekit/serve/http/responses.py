"""Responses: JSON, errors, streams of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sparsekit.serve.errors import RequestError

_encode = msgspec.json.Encoder().encode


def json_response(answer: Any) -> Response:
    """An answer as JSON."""
    return Response(_encode(answer), media_type="application/json")


def error_response(error: RequestError) -> Response:
    """An error as JSON, in OpenAI's shape."""
    headers = error.headers | ({"www-authenticate": "Bearer"} if error.status == 401 else {})
    return Response(_encode(error.body), error.status, headers, "application/json")


def event(answer: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + _encode(answer) + b"\n\n"


#: Status in the log where the client hung up before it had an answer, as nginx has it.
HUNG_UP = 499
#: The last event of a stream that ended well.
DONE = b"data: [DONE]\n\n"


class EventStream(StreamingResponse):
    """Server-sent events. Where the client hangs up, what makes them is closed at once."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
