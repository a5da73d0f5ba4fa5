"""`/v1/embeddings`."""

from __future__ import annotations

import base64

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray
from starlette.responses import Response

from sparsekit.serve.errors import failed, invalid
from sparsekit.serve.http.endpoint import RouteRequest
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.inputs import texts_or_ids
from sparsekit.serve.protocol.requests import EmbeddingRequest
from sparsekit.serve.protocol.responses import Embedding, EmbeddingResponse
from sparsekit.serve.routes.usage import usage_of
from sparsekit.serve.work.encoding import Encoded, EncoderWorker


async def embed(request: RouteRequest) -> Response:
    """Vectors of texts."""
    asked: EmbeddingRequest = request.body
    worker = request.service.encoder(asked.model, "embedding", request.record)
    features = worker.encoder.features if asked.dimensions is None else _checked_dimensions(worker, asked.dimensions)
    given = texts_or_ids(asked.input, "input")
    done = await _encoded(request, worker, given)
    rows = _shortened(done.rows, features) if asked.dimensions is not None else done.rows
    if not (np.isfinite(rows).all() and rows.any(axis=1).all()):
        raise failed(f"{worker.name} gives a vector of zeros")
    data = [
        Embedding(index=number, embedding=vector, truncated=truncated or UNSET)
        for number, (vector, truncated) in enumerate(zip(_written(rows, asked), done.truncated, strict=True))
    ]
    return json_response(EmbeddingResponse(data=data, model=worker.name, usage=usage_of(done)))


async def _encoded(request: RouteRequest, worker: EncoderWorker, given: list[str] | list[list[int]]) -> Encoded:
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return await worker.encode(texts, request.record, truncate=request.body.truncate)
    return await worker.encode_ids([one for one in given if isinstance(one, list)], request.record)


def _checked_dimensions(worker: EncoderWorker, dimensions: int) -> int:
    features = worker.encoder.features
    if dimensions > features:
        raise invalid(f"dimensions must be from 1 to the {features} of {worker.name}", param="dimensions")
    return dimensions


def _shortened(rows: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The first dimensions, normalized; zeros where these are zeros."""
    kept = rows[:, :dimensions]
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.asarray(kept / np.where(norms == 0, 1, norms), np.float32)


def _written(rows: NDArray[np.float32], asked: EmbeddingRequest) -> list[list[float] | str]:
    if asked.encoding_format == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    return [row.tolist() for row in rows]
