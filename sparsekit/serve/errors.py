"""Refusals and failures, with their HTTP status, in OpenAI's shape."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

#: HTTP status -> `type` of an error, where clients of OpenAI know a special one.
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
}


class RequestError(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        message: expected, got, what to do.
        code: a word for programs.
        param: field of the request that is wrong.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self, status: int, message: str, code: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer: whole seconds, at least 1, in `Retry-After`."""
        return {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}

    @property
    def body(self) -> dict[str, Any]:
        """Body of the answer.

        >>> RequestError(429, "the queue is full", "overloaded").body["error"]["type"]
        'rate_limit_error'
        """
        general = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(HTTPStatus(self.status), general)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def too_large(message: str, *, param: str | None = None) -> RequestError:
    """413: a request that can never be served."""
    return RequestError(413, message, "too_large", param=param)


def invalid(message: str, *, param: str | None = None) -> RequestError:
    """422: valid JSON with a wrong field or value."""
    return RequestError(422, message, "invalid_value", param=param)


def unavailable(message: str, *, retry_after: float = 1) -> RequestError:
    """503: not ready, or draining."""
    return RequestError(503, message, "unavailable", retry_after=retry_after)


def failed(message: str) -> RequestError:
    """500: the engine failed, or what it computed is not a number."""
    return RequestError(500, message, "engine_error")
