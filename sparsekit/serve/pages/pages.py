"""Routes of the pages, and of the document that they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.responses import HTMLResponse, JSONResponse, Response

from sparsekit.serve.http.endpoint import Route, RouteRequest
from sparsekit.serve.pages.docs import docs_page
from sparsekit.serve.pages.openapi import openapi_document

#: Pages load nothing, and ask this server alone.
_POLICY = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def page_routes(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Routes of the pages.

    Args:
        routes: those that the pages tell of.
    """
    document = openapi_document(routes)
    interface = docs_page(document)
    page = (Path(__file__).parent / "home.html").read_text(encoding="utf-8")

    async def openapi(_: RouteRequest) -> Response:
        return JSONResponse(document)

    async def docs(_: RouteRequest) -> Response:
        return _page(interface)

    async def home(_: RouteRequest) -> Response:
        return _page(page)

    return (
        Route("/openapi.json", "This interface as an OpenAPI document.", openapi, is_open=True),
        Route("/docs", "This interface as a page.", docs, is_open=True),
        Route("/", "The models, their queues and times, and a box to try a text.", home, is_open=True),
    )


def _page(text: str) -> Response:
    return HTMLResponse(text, headers={"content-security-policy": _POLICY})
