"""Structured logs: a JSON object a line, on standard error. No line has a text of a request in it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from sparsekit.serve.telemetry.record import Record

_ACCESS = logging.getLogger("sparsekit.serve.access")


class JsonLines(logging.Formatter):
    """Formats a log record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        line |= getattr(record, "facts", None) or {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json(level: str) -> None:
    """Send the logs of the server and of uvicorn to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("sparsekit.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())


def log_request(method: str, path: str, status: int, request_id: str, client: str, record: Record) -> None:
    """A line of the access log."""
    if not _ACCESS.isEnabledFor(logging.INFO):
        return
    facts: dict[str, Any] = {"method": method, "path": path, "status": status, "request": request_id, "client": client}
    facts["total_ms"] = round(1e3 * record.total, 3)
    if record.model:
        stages = {name: getattr(record, name) for name in ("tokenization", "queue", "inference")}
        facts |= {"model": record.model, "tokens": record.tokens}
        facts |= {f"{name}_ms": round(1e3 * seconds, 3) for name, seconds in stages.items()}
    if record.outcome:
        facts["outcome"] = record.outcome
    _ACCESS.info("%s %s", method, path, extra={"facts": facts})
