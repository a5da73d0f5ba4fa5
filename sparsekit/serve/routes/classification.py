"""`/classify` and `/rerank`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray
from starlette.responses import Response

from sparsekit.serve.errors import RequestError
from sparsekit.serve.http.endpoint import RouteRequest
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.inputs import texts_or_pairs
from sparsekit.serve.protocol.requests import ClassificationRequest, RerankRequest
from sparsekit.serve.protocol.responses import ClassificationResponse, Label, Ranked, RankedDocument, RerankResponse
from sparsekit.serve.routes.usage import usage_of

T = TypeVar("T")


async def classify(request: RouteRequest) -> Response:
    """Labels of texts or pairs."""
    asked: ClassificationRequest = request.body
    worker = request.service.encoder(asked.model, "classification", request.record)
    done = await worker.encode(texts_or_pairs(asked.input), request.record, truncate=asked.truncate)
    found = _checked(lambda: worker.encoder.labels.classified(done.rows))
    data = [
        Label(
            index=number,
            label=one.label,
            score=one.score,
            probabilities=one.probabilities,
            truncated=truncated or UNSET,
        )
        for number, (one, truncated) in enumerate(zip(found, done.truncated, strict=True))
    ]
    return json_response(ClassificationResponse(data=data, model=worker.name, usage=usage_of(done)))


async def rerank(request: RouteRequest) -> Response:
    """Documents by how well they answer a query."""
    asked: RerankRequest = request.body
    worker = request.service.encoder(asked.model, "classification", request.record)
    _checked(lambda: worker.encoder.labels.scores(np.zeros((0, len(worker.encoder.labels.names)), np.float32)))
    documents = [one if isinstance(one, str) else one.text for one in asked.documents]
    pairs = [(asked.query, document) for document in documents]
    done = await worker.encode(pairs, request.record, truncate=asked.truncate)
    scores: NDArray[np.float32] = worker.encoder.labels.scores(done.rows)
    results = [
        Ranked(
            index=number,
            relevance_score=float(scores[number]),
            document=RankedDocument(documents[number]) if asked.return_documents else UNSET,
            truncated=done.truncated[number] or UNSET,
        )
        for number in np.argsort(-scores, kind="stable").tolist()[: asked.top_n]
    ]
    answer = RerankResponse(id=secrets.token_hex(16), results=results, model=worker.name, usage=usage_of(done))
    return json_response(answer)


def _checked(function: Callable[[], T]) -> T:
    """What a function of the labels returns; as a refusal, that the model is of another kind."""
    try:
        return function()
    except ValueError as error:
        raise RequestError(400, str(error), "wrong_task", param="model") from error
