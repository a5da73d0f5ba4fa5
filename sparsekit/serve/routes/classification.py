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
from sparsekit.serve.http.endpoint import Question
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.answers import AnsweredDocument, ClassificationAnswer, Label, Ranked, RerankAnswer
from sparsekit.serve.protocol.inputs import texts_or_pairs
from sparsekit.serve.protocol.requests import ClassificationRequest, RerankRequest
from sparsekit.serve.routes.usage import usage_of

T = TypeVar("T")


async def classify(question: Question) -> Response:
    """Labels of texts or pairs."""
    asked: ClassificationRequest = question.body
    worker = question.service.encoder(asked.model, "classification", question.record)
    done = await worker.encode(texts_or_pairs(asked.input), question.record, truncate=asked.truncate)
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
    return json_response(ClassificationAnswer(data=data, model=worker.name, usage=usage_of(done)))


async def rerank(question: Question) -> Response:
    """Documents by how well they answer a query."""
    asked: RerankRequest = question.body
    worker = question.service.encoder(asked.model, "classification", question.record)
    _checked(lambda: worker.encoder.labels.scores(np.zeros((0, len(worker.encoder.labels.names)), np.float32)))
    documents = [one if isinstance(one, str) else one.text for one in asked.documents]
    pairs = [(asked.query, document) for document in documents]
    done = await worker.encode(pairs, question.record, truncate=asked.truncate)
    scores: NDArray[np.float32] = worker.encoder.labels.scores(done.rows)
    results = [
        Ranked(
            index=number,
            relevance_score=float(scores[number]),
            document=AnsweredDocument(documents[number]) if asked.return_documents else UNSET,
            truncated=done.truncated[number] or UNSET,
        )
        for number in np.argsort(-scores, kind="stable").tolist()[: asked.top_n]
    ]
    answer = RerankAnswer(id=secrets.token_hex(16), results=results, model=worker.name, usage=usage_of(done))
    return json_response(answer)


def _checked(function: Callable[[], T]) -> T:
    """What a function of the labels returns; as a refusal, that the model is of another kind."""
    try:
        return function()
    except ValueError as error:
        raise RequestError(400, str(error), "wrong_task", param="model") from error
