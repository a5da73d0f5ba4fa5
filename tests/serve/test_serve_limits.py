"""What is refused, with which status, and that refusals cost nothing."""

import asyncio
import json
from dataclasses import asdict

import pytest
from asgi import Request, running
from served import application_of, service_of
from starlette.testclient import TestClient

from sparsekit.cli.serving import EngineOptions, LimitOptions
from sparsekit.serve.limits import Limits
from sparsekit.serve.opening import ModelOptions

GOOD = {"model": "embedder", "input": "a film"}


def fault(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"input": "\xff"}', 400, "not JSON"),
        (b'{"input": "\\ud800"}', 400, "not JSON"),
        (b'{"input": NaN}', 400, "not JSON"),
        (b"[" * 100_000, 422, "object"),
        (b'{"input": ' + b"[" * 100_000, 422, "input"),
        (b"[]", 422, "object"),
        (b"{}", 422, "input"),
        (b'{"input": []}', 422, "length >= 1"),
        (b'{"input": [[]]}', 422, "no tokens"),
        (b'{"input": [1, "a"]}', 422, "must be a text"),
        (b'{"input": [1, 99999999999999999999999]}', 422, "tokens of text 0"),
        (b'{"input": [-1]}', 422, "tokens of text 0"),
        (b'{"input": "a", "inputs": "a"}', 422, "unknown field"),
        (b'{"input": "a", "encoding_format": "int8"}', 422, "int8"),
        (b'{"input": "a", "dimensions": 1e400}', 422, "range"),
    ],
)
def test_bodies_that_are_wrong(client, body, status, message):
    given = body.replace(b"{", b'{"model": "embedder", ', 1) if body.startswith(b'{"') else body
    answer = client.post("/v1/embeddings", content=given, headers={"content-type": "application/json"})
    assert message in fault(answer, status)["message"]


def test_routes_methods_and_models_that_are_not_there(client):
    assert fault(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert fault(client.get("/v1/embeddings"), 405)["code"] == "method_not_allowed"
    found = fault(client.post("/v1/embeddings", json={"model": "x", "input": "a"}), 404)
    assert (found["code"], found["param"]) == ("model_not_found", "model")
    assert "embedder, classifier, reranker, writer" in found["message"]
    assert "give model=" in fault(client.post("/v1/embeddings", json={"input": "a"}), 422)["message"]
    plain = client.post("/v1/embeddings", content=json.dumps(GOOD), headers={"content-type": "text/plain"})
    assert "application/json" in fault(plain, 415)["message"]


@pytest.fixture(scope="module")
def small(folders):
    """A server with small limits, of one model."""
    service = service_of(
        folders["embedder"], queue_tokens=100, texts=20, text_bytes=150, body_bytes=2000, bodies_bytes=9000
    )
    with TestClient(application_of(service)) as client:
        client.service = service
        yield client


def pieces(count):
    """A body that does not say how long it is."""
    for _ in range(count):
        yield b" " * 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"json": {"input": ["a"] * 21}}, "21 texts, more than 20"),
        ({"json": {"input": "a" * 151}}, "text 0 has 151 bytes, more than 150"),
        ({"json": {"input": "é" * 76}}, "text 0 has 152 bytes"),
        ({"json": {"input": ["a film or two"] * 20}}, "120 tokens, and the queue of embedder holds 100"),
        ({"json": {"input": [[5] * 46]}}, "46 tokens in a text, more than 45"),
        ({"json": {"input": "a" * 2000}}, "more than 2,000 bytes"),
        ({"content": pieces(30), "headers": {"content-type": "application/json"}}, "more than 2,000 bytes"),
    ],
)
def test_what_can_never_fit_is_refused_at_once(small, given, message):
    assert message in fault(small.post("/v1/embeddings", **given), 413)["message"]
    assert (small.service.bodies.held, small.service.workers["embedder"].budget.held) == (0, 0)
    assert small.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_a_server_with_a_key(folders):
    service = service_of(folders["embedder"], api_key="secret")
    with TestClient(application_of(service)) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}, {"authorization": "é"}):
            given = {name: value.encode() for name, value in headers.items()}
            answer = client.post("/v1/embeddings", json=GOOD, headers=given)
            assert fault(answer, 401)["type"] == "authentication_error"
            assert client.get("/metrics", headers=given).status_code == 401
        right = {"authorization": "Bearer secret"}
        assert client.post("/v1/embeddings", json=GOOD, headers=right).status_code == 200
        for path in ("/health/live", "/health/ready", "/docs", "/openapi.json", "/"):
            assert client.get(path).status_code == 200, path


def test_a_full_queue_is_429_and_is_empty_again_after(folders):
    """Requests come faster than the engine is let: those with room are answered, the others told to come again."""

    async def work():
        service = service_of(folders["embedder"], queue_tokens=100, batch_tokens=30)
        app = application_of(service)
        async with running(app):
            requests = [Request(app, "/v1/embeddings", {"input": ["a film or two"] * 5}) for _ in range(30)]
            done = [await one.done() for one in requests]
            assert service.workers["embedder"].budget.held == service.bodies.held == 0
            last = await Request(app, "/v1/embeddings", {"input": "a"}).done()
        return done, last

    done, last = asyncio.run(work())
    answered = [one for one in done if one.status == 200]
    refused = [one for one in done if one.status == 429]
    assert len(answered) >= 3
    assert len(answered) + len(refused) == 30
    assert refused
    for one in refused:
        assert int(one.headers["retry-after"]) >= 1
        assert one.json["error"]["code"] == "overloaded"
    assert all(len(one.json["data"]) == 5 for one in answered)
    assert last.status == 200


def test_options_of_the_command_have_the_defaults_of_the_library():
    options = asdict(LimitOptions())
    assert options.pop("batch_tokens") is None, "which depends on the threads"
    assert options == {name: value for name, value in asdict(Limits()).items() if name in options}
    assert asdict(EngineOptions()) == asdict(ModelOptions())


def test_a_body_that_does_not_come_is_408(folders):
    async def work():
        app = application_of(service_of(folders["embedder"], body_seconds=0.05))
        async with running(app):
            request = Request(app, "/v1/embeddings", {"input": "a"})
            request._parts[0]["more_body"] = True
            return await request.done()

    assert asyncio.run(work()).status == 408
