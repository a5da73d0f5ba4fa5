"""Engines that fail, numbers that are none, clients that hang up: no wrong answer, and the server goes on."""

import asyncio
import threading
import time

import numpy as np
import pytest
from asgi import Request, running
from served import application_of, service_of

from sparsekit.engine import Encoder

TEXTS = ["a film", "good", "the story of an actor"]


def answers(folder, requests, prepare, **limits):
    """Answers of a server to requests that come at once."""

    async def work():
        service = service_of(folder, **limits)
        app = application_of(service)
        async with running(app):
            prepare(service.workers[folder.name])
            return [await one.done() for one in [Request(app, *given) for given in requests]]

    return asyncio.run(work())


def outputs_that(change):
    """Have an encoder's outputs changed: `change` gets the tokens of a batch and its rows."""

    def prepare(worker):
        outputs = worker.encoder.outputs
        worker.encoder.outputs = lambda tokens: change(tokens, outputs(tokens))

    return prepare


def has_bad(tokens):
    """Whether a text is the longest one."""
    return np.array([one.ids.size > 5 for one in tokens])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_numbers_that_are_none_are_never_answered(folders, bad):
    def change(tokens, rows):
        rows[has_bad(tokens)] = bad
        return rows

    requests = [("/v1/embeddings", {"input": text}) for text in TEXTS]
    found = answers(folders["embedder"], requests, outputs_that(change), max_wait_ms=20)
    assert [one.status for one in found] == [200, 200, 500]
    assert found[2].json["error"]["type"] == "server_error"


def test_a_batch_that_fails_is_computed_request_by_request(folders):
    def change(tokens, rows):
        if has_bad(tokens).any():
            raise MemoryError("too long")
        return rows

    requests = [("/v1/embeddings", {"input": text}) for text in TEXTS]
    found = answers(folders["embedder"], requests, outputs_that(change), max_wait_ms=20)
    assert [one.status for one in found] == [200, 200, 500]
    expected = Encoder(folders["embedder"]).encode(TEXTS[:2])
    vectors = [one.json["data"][0]["embedding"] for one in found[:2]]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_a_language_model_that_fails_goes_on(folders):
    def prepare(worker):
        run, calls = worker.generator._core.run, []

        def failing(*given, **options):
            calls.append(1)
            if len(calls) == 2:
                raise MemoryError("no room")
            return run(*given, **options)

        worker.generator._core.run = failing

    async def work():
        service = service_of(folders["writer"])
        app = application_of(service)
        async with running(app):
            prepare(service.workers["writer"])
            asked = {"prompt": "w2 w3", "max_tokens": 5}
            first = await Request(app, "/v1/completions", asked).done()
            second = await Request(app, "/v1/completions", asked).done()
            assert service.workers["writer"].budget.held == 0
            return first, second

    first, second = asyncio.run(work())
    assert (first.status, second.status) == (500, 200)


def test_a_stream_that_fails_says_so(folders):
    def prepare(worker):
        run, calls = worker.generator._core.run, []

        def failing(*given, **options):
            calls.append(1)
            logits = run(*given, **options)
            return logits * np.nan if len(calls) == 3 else logits

        worker.generator._core.run = failing

    asked = {"prompt": "w2 w3", "max_tokens": 5, "stream": True}
    (found,) = answers(folders["writer"], [("/v1/completions", asked)], prepare)
    lines = found.body.decode().split("\n\n")
    assert found.status == 200
    assert '"error"' in lines[-2]
    assert "[DONE]" not in found.body.decode()


def slow(worker, entered, release):
    """Have each batch wait in the engine's thread until it is released."""
    outputs = worker.encoder.outputs

    def waiting(tokens):
        entered.append([one.ids.size for one in tokens])
        assert release.wait(30)
        return outputs(tokens)

    worker.encoder.outputs = waiting


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def test_work_of_clients_that_hung_up_is_dropped(folders):
    async def work():
        entered, release = [], threading.Event()
        service = service_of(folders["embedder"])
        app = application_of(service)
        async with running(app):
            worker = service.workers["embedder"]
            slow(worker, entered, release)
            first = Request(app, "/v1/embeddings", {"input": "a"})
            await until(lambda: entered)
            gone = [Request(app, "/v1/embeddings", {"input": "a film " * 5}) for _ in range(3)]
            kept = Request(app, "/v1/embeddings", {"input": "good film"})
            await until(lambda: worker._queue.tokens == 3 * 12 + 4)
            for one in gone:
                one.hang_up()
                await one.done()
            assert worker._queue.tokens == 4
            release.set()
            done = [await first.done(), await kept.done()]
            assert worker.budget.held == 0
            metrics = service.metrics.text().decode()
        return entered, [one.status for one in done], [one.status for one in gone], metrics

    entered, statuses, gone, metrics = asyncio.run(work())
    assert entered == [[3], [4]]
    assert statuses == [200, 200]
    assert gone == [499] * 3
    line = 'outcome="disconnected",route="/v1/embeddings",status="499"'
    assert any(line in one and one.endswith(" 3.0") for one in metrics.splitlines())


@pytest.mark.parametrize("stream", [False, True])
def test_texts_of_clients_that_hung_up_end(folders, stream):
    async def work():
        service = service_of(folders["writer"])
        app = application_of(service)
        async with running(app):
            worker = service.workers["writer"]
            step, steps = worker.generator._core.run, []

            def counted(*given, **options):
                steps.append(1)
                time.sleep(0.01)
                return step(*given, **options)

            worker.generator._core.run = counted
            request = Request(app, "/v1/completions", {"prompt": "w2", "max_tokens": 60, "stream": stream})
            await until(lambda: len(steps) > 3)
            request.hang_up()
            await request.done()
            await until(lambda: not worker._running)
            assert worker.budget.held == 0
            return len(steps)

    assert asyncio.run(work()) < 30
