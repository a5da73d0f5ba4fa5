"""The application: routes, errors, what begins and ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from sparsekit.serve.errors import RequestError
from sparsekit.serve.http.endpoint import Route, endpoint
from sparsekit.serve.http.middleware import Middleware
from sparsekit.serve.http.responses import HUNG_UP, error_response
from sparsekit.serve.service import Service


def application(service: Service, routes: Sequence[Route]) -> ASGIApp:
    """The ASGI application of a server.

    Args:
        service: what the routes share.
        routes: all of them.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await service.start()
            yield
        finally:
            await service.stop()

    made = [routing.Route(one.path, endpoint(one, service), methods=[one.method]) for one in routes]
    app = Starlette(routes=made, lifespan=lifespan, exception_handlers=_HANDLERS)
    return Middleware(app, service, [one.path for one in routes if one.is_open])


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 - it is registered for these
    return error_response(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    status = HTTPStatus(error.status_code)
    message = f"{status.phrase}: {request.method} {request.url.path!r:.80}; /docs says what there is"
    response = error_response(RequestError(status, message, status.name.lower()))
    response.headers.update(error.headers or {})
    return response


async def _hung_up(request: Request, _: Exception) -> Response:
    request.state.record.outcome = "disconnected"
    return Response(status_code=HUNG_UP)


async def _broken(_: Request, __: Exception) -> Response:
    return error_response(RequestError(500, "the server failed; its log says why", "internal_error"))


_HANDLERS = {RequestError: _refused, HTTPException: _no_route, ClientDisconnect: _hung_up, Exception: _broken}
