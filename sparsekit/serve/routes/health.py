"""`/health/live`, `/health/ready`, `/metrics`."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from sparsekit.serve.errors import unavailable
from sparsekit.serve.http.endpoint import Question


async def live(question: Question) -> Response:
    """Whether the server answers at all: waits for no model."""
    del question
    return JSONResponse({"status": "live"})


async def ready(question: Question) -> Response:
    """Whether every model has done work and requests are taken."""
    if not question.service.is_ready:
        state = "draining" if question.service.life.is_draining else "starting"
        raise unavailable(f"the server is {state}")
    return JSONResponse({"status": "ready"})


async def metrics(question: Question) -> Response:
    """Metrics for Prometheus."""
    return Response(question.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
