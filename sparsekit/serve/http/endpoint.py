"""Routes as data, and their endpoints: read a request, call the handler, cancel it if the client hangs up."""

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
class RouteRequest:
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
        handler: answers a request.
        request_type: of the body, for POST; None for GET.
        response_type: of the body; None if it is not JSON.
        is_open: whether it needs no key.
    """

    path: str
    summary: str
    handler: Callable[[RouteRequest], Awaitable[Response]]
    request_type: type | None = None
    response_type: type | None = None
    is_open: bool = False

    @property
    def method(self) -> str:
        """Of HTTP."""
        return "GET" if self.request_type is None else "POST"


def endpoint(route: Route, service: Service) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a route, for Starlette."""

    async def answered(request: Request) -> Response:
        record: Record = request.state.record
        record.route = route.path
        if route.request_type is None:
            return await route.handler(RouteRequest(service, record, path=request.path_params))
        async with received(request, service.limits, service.bodies) as body:
            parsed = RouteRequest(service, record, decoded(body, route.request_type))
            return await _while_connected(request, route.handler(parsed))

    return answered


async def _while_connected(request: Request, handled: Awaitable[Response]) -> Response:
    """Await a handler; cancel it if the client hangs up.

    Raises:
        starlette.requests.ClientDisconnect: it did.
    """
    answering = asyncio.ensure_future(handled)
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
