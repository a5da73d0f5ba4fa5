"""The process: uvicorn with models, which drains before it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from sparsekit.serve.http.application import application
from sparsekit.serve.limits import Limits
from sparsekit.serve.opening import ModelOptions, open_workers
from sparsekit.serve.routes.table import ROUTES
from sparsekit.serve.service import Service
from sparsekit.serve.telemetry.logs import log_as_json
from sparsekit.serve.telemetry.metrics import Metrics

_LOG = logging.getLogger("sparsekit.serve")
#: Seconds for which a draining server refuses new requests with 503 rather than by closing its socket, at least.
_GRACE = 0.5
#: Seconds for connections to close once the server has drained.
_CLOSING = 5


def serve(
    folders: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: ModelOptions | None = None,
    limits: Limits | None = None,
    api_key: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    log_level: str = "info",
) -> None:
    """Serve models until SIGTERM or SIGINT; then answer what was accepted, and return.

    Args:
        folders: see `open_workers`.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        options: how to open the models.
        limits: limits of requests and queues.
        api_key: key that requests must give; None for none.
        certificate: TLS certificate, PEM; None for plain HTTP.
        key: its private key, PEM.
        log_level: of the logs on standard error.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the engine does not run a model, or an argument is out of range.
        SystemExit: the port cannot be used, or a model fails to answer.
    """
    limits, metrics = limits or Limits(), Metrics()
    service = Service(open_workers(folders, options or ModelOptions(), limits, metrics), limits, metrics, api_key)
    log_as_json(log_level)
    config = uvicorn.Config(
        application(service, ROUTES),
        host=host,
        port=port,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSING,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    _Server(config, service).run()


class _Server(uvicorn.Server):
    """uvicorn, but at the first signal it drains: it answers what it has, and 503 to what comes."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def main_loop(self) -> None:
        """Run until the server has drained."""
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain; end at once at the second signal, or before there is anything to drain."""
        del sig, frame
        if self._loop is None:
            self.should_exit = True
        elif self._service.lifecycle.is_draining:
            self.should_exit = self.force_exit = True
        else:
            self._service.lifecycle.is_draining = True
            self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        lifecycle = self._service.lifecycle
        _LOG.info("draining: %d requests run", lifecycle.running)
        has_drained, _ = await asyncio.gather(
            lifecycle.drained(self._service.limits.drain_seconds), asyncio.sleep(_GRACE)
        )
        if not has_drained:
            _LOG.error("%d requests did not end in time and are lost", lifecycle.running)
        self.should_exit = True
