"""What `/v1/completions` and `/v1/chat/completions` share: options, whole texts, streams of pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, cast

from sparsekit.engine import Completion
from sparsekit.serve.errors import RequestError
from sparsekit.serve.http.endpoint import RouteRequest
from sparsekit.serve.http.responses import DONE, EventStream, event
from sparsekit.serve.protocol.requests import GenerationRequest
from sparsekit.serve.protocol.responses import Finish, Usage
from sparsekit.serve.routes.usage import usage_of_texts
from sparsekit.serve.work.generating import GeneratorWorker, Piece

#: Why the engine ended a text -> the same in OpenAI's words.
_FINISH = {"end": "stop", "stop": "stop", "length": "length"}
#: Filters of tokens, which greedy decoding does not have.
_FILTERS = ("top_k", "top_p", "min_p")


def finish_reason(reason: str) -> Finish | None:
    """Why a text ended, in OpenAI's words; None if it goes on."""
    return cast(Finish, _FINISH[reason]) if reason else None


def options_of(asked: GenerationRequest) -> dict[str, Any]:
    """Options of `Generator.prepare`."""
    names = ("temperature", "repetition_penalty", "seed", *_FILTERS)
    options = {name: getattr(asked, name) for name in names}
    if asked.temperature == 0:
        options |= dict.fromkeys(_FILTERS)
    return {**options, "stop": asked.stop or ()}


def pieces_of(
    request: RouteRequest, worker: GeneratorWorker, prompts: Sequence[Sequence[int]], limit: int | None, default: int
) -> AsyncGenerator[Piece, None]:
    """Pieces of the continuations of prompts."""
    options = options_of(request.body)
    return worker.generate(prompts, request.record, max_new_tokens=limit, default=default, **options)


async def whole_texts(pieces: AsyncGenerator[Piece, None]) -> list[Completion]:
    """Continuations, in the order of their prompts."""
    done = {piece.number: piece.completion async for piece in pieces}
    return [done[number] for number in sorted(done)]


async def stream(
    request: RouteRequest,
    pieces: AsyncGenerator[Piece, None],
    chunks: Callable[[Piece], Iterable[Any]],
    last: Callable[[Usage], Any],
) -> EventStream:
    """An answer piece by piece.

    The first piece is awaited: what is refused before it has a status of its own.

    Args:
        request: what is asked.
        pieces: pieces of the continuations.
        chunks: events of a piece.
        last: the event that has the usage, if it is asked for.
    """
    first = await anext(pieces)
    options = request.body.stream_options
    with_usage = options is not None and options.include_usage
    return EventStream(_events(request, first, pieces, chunks, last if with_usage else None))


async def _events(
    request: RouteRequest,
    first: Piece,
    pieces: AsyncGenerator[Piece, None],
    chunks: Callable[[Piece], Iterable[Any]],
    last: Callable[[Usage], Any] | None,
) -> AsyncGenerator[bytes, None]:
    done: dict[int, Completion] = {}
    try:
        async for piece in _chained(first, pieces):
            done[piece.number] = piece.completion
            for chunk in chunks(piece):
                yield event(chunk)
        if last is not None:
            yield event(last(usage_of_texts(list(done.values()))))
        yield DONE
    except RequestError as error:
        request.record.outcome = "failed"
        yield event(error.body)
    except (asyncio.CancelledError, GeneratorExit):
        request.record.outcome = "disconnected"
        raise
    finally:
        await pieces.aclose()


async def _chained(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    yield first
    async for piece in rest:
        yield piece
