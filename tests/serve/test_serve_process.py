"""The real process, with real sockets and the real client of OpenAI."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx2
import numpy as np
import openai
import pytest

from sparsekit.engine import Encoder, Generator


@contextmanager
def serving(*arguments):
    """A server on a free port: its process, address and the lines of its log."""
    command = [sys.executable, "-m", "sparsekit", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    lines = []
    try:
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "".join(lines)
            lines.append(line)
            if "running on" in line:
                address = json.loads(line)["message"].split()[3]
        reading = threading.Thread(target=lambda: lines.extend(process.stderr))
        reading.start()
        yield process, address, lines
    finally:
        process.kill()
        process.wait()
        reading.join()


def load(address, answers, stop):
    """Ask until the server is gone; keep what came back for each request that was sent."""
    with httpx2.Client(base_url=address, timeout=60) as client:
        while not stop.is_set():
            try:
                answer = client.post("/v1/embeddings", json={"input": ["a film " * 5] * 8})
            except httpx2.ConnectError:
                return  # refused: the socket is closed, and nothing was accepted
            answers.append(answer.status_code)
            if answer.status_code == 503:
                return


@pytest.mark.slow
def test_sigterm_under_load_loses_nothing(folders):
    with serving(folders["embedder"]) as (process, address, lines):
        answers, stop = [], threading.Event()
        clients = [threading.Thread(target=load, args=(address, answers, stop)) for _ in range(8)]
        for one in clients:
            one.start()
        while len(answers) < 50:
            assert process.poll() is None, lines
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for one in clients:
            one.join(60)
        assert set(answers) <= {200, 503}, lines
        assert answers.count(200) >= 50
    logged = [json.loads(line) for line in lines]
    assert [one["status"] for one in logged if one.get("path") == "/v1/embeddings"].count(200) == answers.count(200)
    assert not [one for one in logged if one["level"] in ("error", "critical")]


@pytest.mark.slow
def test_the_client_of_openai(folders):
    with serving(folders["embedder"], folders["writer"], "--api-key", "secret") as (_, address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)
        assert [one.id for one in client.models.list()] == ["embedder", "writer"]
        found = client.embeddings.create(model="embedder", input=["a film", "good"])
        expected = Encoder(folders["embedder"]).encode(["a film", "good"])
        np.testing.assert_allclose([one.embedding for one in found.data], expected, rtol=1e-4, atol=1e-5)
        generator = Generator(folders["writer"])
        text = generator.generate("w2 w3", max_new_tokens=8)
        asked = {"model": "writer", "prompt": "w2 w3", "max_tokens": 8}
        assert client.completions.create(**asked).choices[0].text == text
        assert "".join(one.choices[0].text for one in client.completions.create(**asked, stream=True)) == text
        messages = [{"role": "user", "content": "w2"}]
        asked = {"model": "writer", "messages": messages, "max_completion_tokens": 8, "seed": 1, "temperature": 0.5}
        whole = client.chat.completions.create(**asked)
        stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        assert "".join(one.choices[0].delta.content for one in chunks[:-1]) == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage or chunks[-1].usage.total_tokens == whole.usage.total_tokens
        with pytest.raises(openai.NotFoundError, match="there is no model"):
            client.embeddings.create(model="none", input="a")
        with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
            client.embeddings.create(model="embedder", input="a", dimensions=1000)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong").models.list()


@pytest.mark.slow
def test_a_folder_that_is_none_ends_the_command(tmp_path):
    command = [sys.executable, "-m", "sparsekit", "serve", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "there is no folder" in ended.stderr


def test_serving_imports_no_torch(folders):
    code = "import sys, sparsekit.serve.running; assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
