"""`/v1/models`."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from sparsekit.serve.errors import RequestError
from sparsekit.serve.http.endpoint import RouteRequest
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.responses import ModelCard, ModelList
from sparsekit.serve.service import Service
from sparsekit.serve.work.worker import Worker


async def list_models(request: RouteRequest) -> Response:
    """The models that are served."""
    service = request.service
    return json_response(ModelList(data=[_card(service, worker) for worker in service.workers.values()]))


async def show_model(request: RouteRequest) -> Response:
    """One of them."""
    name = (request.path or {})["model"]
    worker = request.service.workers.get(name)
    if worker is None:
        raise RequestError(404, f"there is no model {name!r:.80}", "model_not_found", param="model")
    return json_response(_card(request.service, worker))


def _card(service: Service, worker: Worker[Any]) -> ModelCard:
    return ModelCard(
        id=worker.name,
        created=service.started,
        task=worker.task,
        max_tokens=worker.max_tokens,
        is_ready=worker.is_ready,
    )
