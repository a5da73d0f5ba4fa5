"""The OpenAPI document as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sparsekit serve: interface</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
code {{ background: #8882; padding: 0 .3em; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; }}
th, td {{ border-bottom: 1px solid #8886; padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }}
</style>
<h1>Interface</h1>
<p>As a document: <a href="openapi.json">openapi.json</a>. <a href="./">The server's page</a>.</p>
{routes}
</html>
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """A page, as HTML.

    Args:
        document: see `openapi_document`.
    """
    schemas = document["components"]["schemas"]
    parts = [
        "\n".join(_route(path, method, operation, schemas))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return _PAGE.format(routes="\n".join(parts))


def _route(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>\n<p>{escape(operation['summary'])}</p>"
    body = operation.get("requestBody")
    if body is not None:
        yield from _fields(body["content"]["application/json"]["schema"], schemas)
    for status, response in operation["responses"].items():
        if status != "200":
            yield f"<p>{status}: {escape(response['description'])}</p>"


def _fields(reference: Mapping[str, str], schemas: Mapping[str, Any]) -> Iterator[str]:
    """A table of the fields of a body."""
    schema = schemas[reference["$ref"].rpartition("/")[2]]
    yield "<table><tr><th>field<th>type<th>"
    for name, field in schema["properties"].items():
        needed = " (required)" if name in schema.get("required", ()) else ""
        text = escape(_description(field))
        yield f"<tr><td><code>{escape(name)}</code>{needed}<td>{escape(_type(field, schemas))}<td>{text}"
    yield "</table>"


def _description(field: Mapping[str, Any]) -> str:
    found = [field, *field.get("anyOf", ())]
    return next((str(one["description"]) for one in found if "description" in one), "")


def _type(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """The type of a field, in words."""
    if "anyOf" in field:
        return " or ".join(_type(one, schemas) for one in field["anyOf"])
    if "$ref" in field:
        fields = ", ".join(schemas[field["$ref"].rpartition("/")[2]]["properties"])
        return f"object of {fields}"
    if "enum" in field:
        return " or ".join(str(one) for one in field["enum"])
    if field.get("type") == "array":
        return f"list of ({_type(field['items'], schemas)})"
    return str(field.get("type", "any"))
