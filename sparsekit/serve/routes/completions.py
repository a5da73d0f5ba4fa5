"""`/v1/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from functools import partial

from starlette.responses import Response

from sparsekit.serve.http.endpoint import RouteRequest
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.inputs import texts_or_ids
from sparsekit.serve.protocol.requests import CompletionRequest
from sparsekit.serve.protocol.responses import CompletionResponse, TextChoice
from sparsekit.serve.routes.generation import finish_reason, pieces_of, stream, whole_texts
from sparsekit.serve.routes.usage import usage_of_texts
from sparsekit.serve.work.generating import GeneratorWorker, Piece

#: OpenAI's default.
_TOKENS = 16


async def complete(request: RouteRequest) -> Response:
    """Continuations of prompts."""
    asked: CompletionRequest = request.body
    worker = request.service.generator(asked.model, request.record)
    prompts = await _prompts(request, worker)
    pieces = pieces_of(request, worker, prompts, asked.max_tokens, _TOKENS)
    answer = partial(
        CompletionResponse, id=f"cmpl-{secrets.token_hex(12)}", created=int(time.time()), model=worker.name
    )
    if asked.stream:
        return await stream(
            request,
            pieces,
            lambda piece: (answer(choices=[choice]) for choice in _choices(piece)),
            lambda usage: answer(choices=[], usage=usage),
        )
    done = await whole_texts(pieces)
    choices = [
        TextChoice(index=number, text=one.text, finish_reason=finish_reason(one.finish))
        for number, one in enumerate(done)
    ]
    return json_response(answer(choices=choices, usage=usage_of_texts(done)))


async def _prompts(request: RouteRequest, worker: GeneratorWorker) -> list[list[int]]:
    given = texts_or_ids(request.body.prompt, "prompt")
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return await worker.tokenize(texts, request.record)
    return [one for one in given if isinstance(one, list)]


def _choices(piece: Piece) -> Iterator[TextChoice]:
    if piece.text or piece.finish:
        yield TextChoice(index=piece.number, text=piece.text, finish_reason=finish_reason(piece.finish))
