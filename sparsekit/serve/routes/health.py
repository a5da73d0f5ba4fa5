"""`/health/live`, `/health/ready`, `/metrics`."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from sparsekit.serve.errors import unavailable
from sparsekit.serve.http.endpoint import RouteRequest


async def live(request: RouteRequest) -> Response:
    """Whether the server answers at all: waits for no model."""
    del request
    return JSONResponse({"status": "live"})


async def ready(request: RouteRequest) -> Response:
    """Whether every model has done work and requests are taken."""
    if not request.service.is_ready:
        state = "draining" if request.service.lifecycle.is_draining else "starting"
        raise unavailable(f"the server is {state}")
    return JSONResponse({"status": "ready"})


async def metrics(request: RouteRequest) -> Response:
    """Metrics for Prometheus."""
    return Response(request.service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
