"""Read the body of a request: bounded before it is parsed, in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from starlette.requests import Request

from sparsekit.serve.errors import RequestError, invalid, too_large
from sparsekit.serve.limits import Limits
from sparsekit.serve.work.admission import Budget

T = TypeVar("T")

#: Bytes that a request counts beside its body, so that the number of small ones is bounded too.
_OVERHEAD = 4096


@asynccontextmanager
async def received(request: Request, limits: Limits, bodies: Budget) -> AsyncIterator[bytes]:
    """The body of a request, which counts in the budget until the block ends.

    Raises:
        RequestError: it is no JSON by its type (415), too large (413), too slow (408), or there is no room (429).
        starlette.requests.ClientDisconnect: the client hung up.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = f"the body must be JSON, with content-type: application/json, got {kind[:80] or 'none'!r}"
        raise RequestError(415, message, "unsupported_media_type")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        _check_size(int(declared), limits)
        bodies.check(int(declared) + _OVERHEAD)
    held = _Held(bodies)
    try:
        yield await _read(request, limits, held)
    finally:
        bodies.give_back(held.bytes)


class _Held:
    """The part of a budget that one request holds, which grows."""

    def __init__(self, budget: Budget) -> None:
        self.bytes = 0
        self._budget = budget
        self.grow(_OVERHEAD)

    def grow(self, amount: int) -> None:
        self._budget.take(amount)
        self.bytes += amount


async def _read(request: Request, limits: Limits, held: _Held) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                _check_size(len(body) + len(piece), limits)
                held.grow(len(piece))
                body += piece
    except TimeoutError:
        message = f"the request took more than {limits.body_seconds:g} seconds to come; send it faster, or split it"
        raise RequestError(408, message, "too_slow") from None
    return bytes(body)


def decoded(body: bytes, kind: type[T]) -> T:
    """A request from JSON.

    Raises:
        RequestError: it is no JSON (400), or not of this shape (422).
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}", "invalid_json") from None


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.body_bytes:
        raise too_large(f"the body has more than {limits.body_bytes:,} bytes; split the request")
