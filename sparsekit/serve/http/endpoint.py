"""Routes as data, and the function that answers one: reads the request, and drops its work if the client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sparsekit.serve.http.body import decoded, received
from sparsekit.serve.service import Service
from sparsekit.serve.telemetry.record import Record


@dataclass(frozen=True)
class Question:
    """A request, as routes see it."""

    service: Service
    record: Record
    body: Any = None  # of the route's type
    path: dict[str, str] | None = None  # parameters


@dataclass(frozen=True)
class Route:
    """A route.

    Args:
        path: its path.
        summary: what it does, for the documents.
        answer: answers a question.
        asks: type of the body, for POST; None for GET.
        gives: type of the answer; None if it is not JSON.
        is_open: whether it needs no key.
    """

    path: str
    summary: str
    answer: Callable[[Question], Awaitable[Response]]
    asks: type | None = None
    gives: type | None = None
    is_open: bool = False

    @property
    def method(self) -> str:
        """Of HTTP."""
        return "GET" if self.asks is None else "POST"


def endpoint(route: Route, service: Service) -> Callable[[Request], Awaitable[Response]]:
    """The route as Starlette wants it."""

    async def answer(request: Request) -> Response:
        record: Record = request.state.record
        record.route = route.path
        if route.asks is None:
            return await route.answer(Question(service, record, path=request.path_params))
        async with received(request, service.limits, service.bodies) as body:
            question = Question(service, record, decoded(body, route.asks))
            return await _while_connected(request, route.answer(question))

    return answer


async def _while_connected(request: Request, answer: Awaitable[Response]) -> Response:
    """Await an answer; cancel it if the client hangs up.

    Raises:
        starlette.requests.ClientDisconnect: it did.
    """
    answering = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        gone.cancel()
        if answering.cancel():
            await asyncio.gather(answering, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
