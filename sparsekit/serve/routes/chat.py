"""`/v1/chat/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from functools import partial

from starlette.responses import Response

from sparsekit.serve.errors import invalid
from sparsekit.serve.http.endpoint import RouteRequest
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.requests import ChatRequest
from sparsekit.serve.protocol.responses import ChatChoice, ChatChunk, ChatPiece, ChatResponse, Delta, ResponseMessage
from sparsekit.serve.routes.generation import finish_reason, pieces_of, stream, whole_texts
from sparsekit.serve.routes.usage import usage_of_texts
from sparsekit.serve.work.generating import Piece

#: Most tokens of an answer where the request does not say: a queue cannot keep the whole context free for each.
_TOKENS = 512


async def chat(request: RouteRequest) -> Response:
    """The next message of a chat."""
    asked: ChatRequest = request.body
    worker = request.service.generator(asked.model, request.record)
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise invalid("give max_completion_tokens or max_tokens, not both", param="max_tokens")
    ids = await worker.tokenize_chat([message.as_text() for message in asked.messages], request.record)
    pieces = pieces_of(request, worker, [ids], asked.max_completion_tokens or asked.max_tokens, _TOKENS)
    number, now = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
    if asked.stream:
        chunk = partial(ChatChunk, id=number, created=now, model=worker.name)
        chunks = _Chunks()
        return await stream(
            request,
            pieces,
            lambda piece: (chunk(choices=[one]) for one in chunks.of(piece)),
            lambda usage: chunk(choices=[], usage=usage),
        )
    done = await whole_texts(pieces)
    reason = finish_reason(done[0].finish)
    choice = ChatChoice(message=ResponseMessage(content=done[0].text), finish_reason=reason or "stop")
    usage = usage_of_texts(done)
    return json_response(ChatResponse(id=number, created=now, model=worker.name, choices=[choice], usage=usage))


class _Chunks:
    """Pieces as deltas: the first one names the role, the last one the reason of the end."""

    def __init__(self) -> None:
        self._has_begun = False

    def of(self, piece: Piece) -> Iterator[ChatPiece]:
        if self._has_begun and not piece.text and not piece.finish:
            return
        delta = Delta(content=piece.text) if self._has_begun else Delta(role="assistant", content=piece.text)
        self._has_begun = True
        yield ChatPiece(delta=delta, finish_reason=finish_reason(piece.finish))
