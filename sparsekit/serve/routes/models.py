"""`/v1/models`."""

from __future__ import annotations

from typing import Literal, cast

from starlette.responses import Response

from sparsekit.serve.errors import RequestError
from sparsekit.serve.http.endpoint import Question
from sparsekit.serve.http.responses import json_response
from sparsekit.serve.protocol.answers import ModelCard, ModelList
from sparsekit.serve.service import Service, task_of
from sparsekit.serve.work.encoding import EncoderWorker
from sparsekit.serve.work.generating import GeneratorWorker
from sparsekit.serve.work.worker import Worker


async def list_models(question: Question) -> Response:
    """The models that are served."""
    service = question.service
    return json_response(ModelList(data=[_card(service, worker) for worker in service.workers.values()]))


async def show_model(question: Question) -> Response:
    """One of them."""
    name = (question.path or {})["model"]
    worker = question.service.workers.get(name)
    if worker is None:
        raise RequestError(404, f"there is no model {name!r:.80}", "model_not_found", param="model")
    return json_response(_card(question.service, worker))


def _card(service: Service, worker: Worker) -> ModelCard:
    task = cast(Literal["embedding", "classification", "language"], task_of(worker))
    return ModelCard(
        id=worker.name, created=service.started, task=task, max_tokens=_max_tokens(worker), is_ready=worker.is_ready
    )


def _max_tokens(worker: Worker) -> int:
    if isinstance(worker, EncoderWorker):
        return worker.encoder.max_tokens
    assert isinstance(worker, GeneratorWorker)  # noqa: S101 - there is no other
    return worker.generator.context
