"""What every request passes first: its number, the key, draining; on its way back, headers, the log and metrics."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparsekit.serve.errors import RequestError, unavailable
from sparsekit.serve.http.responses import error_response
from sparsekit.serve.service import Service
from sparsekit.serve.telemetry.logs import log_request
from sparsekit.serve.telemetry.record import Record

#: A number that a client may give its request.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Middleware:
    """Middleware around all routes.

    Args:
        app: the routes.
        service: what they share.
        open_paths: paths that need no key.
    """

    def __init__(self, app: ASGIApp, service: Service, open_paths: Collection[str]) -> None:
        self._app = app
        self._service = service
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        one = _Exchange(scope, send)
        try:
            await self._answer(scope, receive, one)
        except BaseException:
            one.record.outcome = one.record.outcome or "failed"
            raise
        finally:
            one.close(self._service)

    async def _answer(self, scope: Scope, receive: Receive, one: _Exchange) -> None:
        refusal = self._refusal(scope, one)
        if refusal is not None:
            await error_response(refusal)(scope, receive, one.send)
        elif scope["method"] == "POST":
            with self._service.lifecycle:
                await self._app(scope, receive, one.send)
        else:
            await self._app(scope, receive, one.send)

    def _refusal(self, scope: Scope, one: _Exchange) -> RequestError | None:
        key = self._service.api_key
        if key is not None and scope["path"] not in self._open_paths:
            given = Headers(scope=scope).get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
                return RequestError(401, "give the key of the server, as Authorization: Bearer KEY", "invalid_api_key")
        if scope["method"] == "POST" and self._service.lifecycle.is_draining:
            one.closes = True
            return unavailable("the server is shutting down; ask another, or later")
        return None


class _Exchange:
    """A request and what was answered so far."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.record = Record()
        self.closes = False  # the connection
        self._scope = scope
        self._send = send
        self._status = 0
        given = Headers(scope=scope).get("x-request-id", "")
        self._id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["record"] = self.record

    async def send(self, message: Message) -> None:
        """Send a message, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._id
            headers["x-content-type-options"] = "nosniff"
            if self.record.model:
                headers.update(self.record.headers())
            if self.closes:
                headers["connection"] = "close"
        await self._send(message)

    def close(self, service: Service) -> None:
        """Log and count."""
        status = self._status or 500
        service.metrics.request(status, self.record)
        client = self._scope.get("client") or ("",)
        log_request(self._scope["method"], self._scope["path"], status, self._id, client[0], self.record)
