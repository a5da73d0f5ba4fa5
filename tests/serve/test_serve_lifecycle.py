"""Health, draining, metrics, logs, pages."""

import asyncio
import json
import logging
import re
import threading

import pytest
from asgi import Request, running
from served import application_of, service_of
from test_serve_faults import slow, until

from sparsekit.serve.errors import RequestError
from sparsekit.serve.opening import ModelOptions, open_workers
from sparsekit.serve.routes.table import ROUTES
from sparsekit.serve.telemetry.logs import JsonLines


def test_liveness_waits_for_no_model_and_readiness_for_real_work(folders):
    async def work():
        entered, release = [], threading.Event()
        service = service_of(folders["embedder"])
        app = application_of(service)
        before = await Request(app, "/health/ready").done()
        async with running(app):
            ready = await Request(app, "/health/ready").done()
            slow(service.workers["embedder"], entered, release)
            asked = Request(app, "/v1/embeddings", {"input": "a"})
            await until(lambda: entered)
            live = await Request(app, "/health/live").done()
            release.set()
            await asked.done()
        after = await Request(app, "/health/ready").done()
        return [one.status for one in (before, ready, live, asked, after)]

    assert asyncio.run(work()) == [503, 200, 200, 200, 503]


def test_draining_answers_what_was_accepted_and_refuses_what_comes(folders):
    async def work():
        entered, release = [], threading.Event()
        service = service_of(folders["embedder"])
        app = application_of(service)
        async with running(app):
            slow(service.workers["embedder"], entered, release)
            asked = [Request(app, "/v1/embeddings", {"input": "a"}) for _ in range(5)]
            await until(lambda: service.workers["embedder"].budget.held == 15)
            service.lifecycle.is_draining = True
            late = await Request(app, "/v1/embeddings", {"input": "a"}).done()
            health = [await Request(app, f"/health/{name}").done() for name in ("live", "ready")]
            assert not await service.lifecycle.drained(0.01)
            release.set()
            assert await service.lifecycle.drained(30)
            return [(await one.done()).status for one in asked], late, [one.status for one in health]

    asked, late, health = asyncio.run(work())
    assert asked == [200] * 5
    assert (late.status, late.headers["connection"], late.headers["retry-after"]) == (503, "close", "1")
    assert health == [200, 503]


def test_a_model_that_answers_nonsense_is_never_ready(folders):
    service = service_of(folders["embedder"])
    worker = service.workers["embedder"]
    worker.encoder.outputs = lambda tokens: worker.encoder.run([one.ids for one in tokens])[0][:1] * float("nan")

    async def work():
        with pytest.raises(RequestError, match="not finite"):
            await service.start()
        await service.stop()

    asyncio.run(work())
    assert not service.is_ready


def test_metrics(client):
    client.post("/v1/embeddings", json={"model": "embedder", "input": "a film"})
    client.post("/v1/embeddings", json={"model": "no-such-model", "input": "a film"})
    lines = client.get("/metrics").text.splitlines()
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert found['sparsekit_request_seconds_count{model="embedder",stage="queue"}'] >= 1
    assert found['sparsekit_batch_tokens_sum{model="embedder"}'] >= 4
    assert found['sparsekit_queue_tokens{model="embedder"}'] == 0
    labels = 'model="embedder",outcome="ok",route="/v1/embeddings",status="200"'
    assert found[f"sparsekit_requests_total{{{labels}}}"] >= 1
    assert 'status="404"' in "".join(found)
    assert "no-such-model" not in "".join(lines), "clients must not make labels"


def test_the_access_log_is_json_without_texts(client):
    kept = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(JsonLines().format(record))
    logger = logging.getLogger("sparsekit.serve.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        client.post("/v1/embeddings", json={"model": "embedder", "input": "a private text"})
        client.get("/health/live", headers={"x-request-id": 'forged"\tline'})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    one, other = map(json.loads, kept)
    assert (one["method"], one["path"], one["status"], one["model"]) == ("POST", "/v1/embeddings", 200, "embedder")
    assert one["tokens"] == 5
    assert one["total_ms"] >= one["inference_ms"] > 0
    assert "private" not in "".join(kept)
    assert re.fullmatch("[0-9a-f]{32}", other["request"])


def test_models_are_listed(client):
    listed = client.get("/v1/models").json()
    assert {one["id"]: one["task"] for one in listed["data"]} == {
        "embedder": "embedding",
        "classifier": "classification",
        "reranker": "classification",
        "writer": "language",
    }
    assert client.get("/v1/models/writer").json() == listed["data"][3]
    assert client.get("/v1/models/none").status_code == 404


def test_the_interface_names_every_route_and_field(client):
    document = client.get("/openapi.json").json()
    api = [one for one in ROUTES if one.path not in ("/", "/docs", "/openapi.json")]
    assert set(document["paths"]) == {one.path.replace(":path", "") for one in api}
    page = client.get("/docs").text
    for one in api:
        assert one.path.replace(":path", "") in page
        for field in getattr(one.request_type, "__struct_fields__", ()):
            assert f"<code>{field}</code>" in page
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])


def test_pages_load_nothing_from_elsewhere(client):
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", answer.text)


def test_models_that_cannot_be_served(folders, tmp_path):
    service = service_of(folders["embedder"])
    given = (ModelOptions(), service.limits, service.metrics)
    with pytest.raises(ValueError, match="two models are called embedder"):
        open_workers([str(folders["embedder"])] * 2, *given)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        open_workers([str(tmp_path / "none")], *given)
