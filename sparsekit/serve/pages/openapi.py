"""The OpenAPI document, from the routes and the types of their bodies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

import sparsekit
from sparsekit.serve.http.endpoint import Route
from sparsekit.serve.protocol.responses import ErrorResponse

#: Status -> when it is answered.
_REFUSALS = {
    400: "The body is not JSON, or the model has another task.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The body took too long to come.",
    413: "The request exceeds a limit, or a text what the model takes.",
    415: "The body is not JSON by its content-type.",
    422: "A field is missing, unknown or out of range.",
    429: "The queue is full; Retry-After says when to come again.",
    500: "The engine failed, or computed numbers that are not finite.",
    503: "The model is not ready, or the server is shutting down.",
}


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    types = {one for route in routes for one in (route.request_type, route.response_type) if one is not None} | {
        ErrorResponse
    }
    ordered = sorted(types, key=lambda one: one.__name__)
    found, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(ordered, found, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "sparsekit serve", "version": sparsekit.__version__},
        "paths": {_path(one.path): {one.method.lower(): _operation(one, schema_of)} for one in routes},
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _path(path: str) -> str:
    """Starlette's `{model:path}` as OpenAPI has it."""
    return re.sub(r":\w+}", "}", path)


def _operation(route: Route, schema_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)", route.path)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__,
        "responses": _responses(route, schema_of),
    }
    if names:
        string = {"schema": {"type": "string"}}
        operation["parameters"] = [{"name": name, "in": "path", "required": True, **string} for name in names]
    if route.request_type is not None:
        operation["requestBody"] = {"required": True, "content": _json(schema_of[route.request_type])}
    if not route.is_open:
        operation["security"] = [{}, {"key": []}]
    return operation


def _responses(route: Route, schema_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "The answer."}
    if route.response_type is not None:
        answer["content"] = _json(schema_of[route.response_type])
    refusals = _REFUSALS if route.request_type is not None else {}
    error = _json(schema_of[ErrorResponse])
    return {
        "200": answer,
        **{str(status): {"description": text, "content": error} for status, text in refusals.items()},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
