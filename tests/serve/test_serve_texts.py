"""Completions and chats over HTTP equal what `Generator` writes."""

import json

import pytest

from sparsekit.engine import Generator

PROMPTS = ["w2 w3 w4", "w9", "w11 w12 w13 w14 w15"]


@pytest.fixture(scope="module")
def generator(folders):
    return Generator(folders["writer"])


def events(answer):
    """Events of a stream."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def ask(client, **options):
    return client.post("/v1/completions", json={"model": "writer", **options})


def test_continuations(client, generator):
    expected = generator.complete(PROMPTS, max_new_tokens=9)
    answer = ask(client, prompt=PROMPTS, max_tokens=9).json()
    assert [one["text"] for one in answer["choices"]] == [one.text for one in expected]
    assert [one["index"] for one in answer["choices"]] == [0, 1, 2]
    assert {one["finish_reason"] for one in answer["choices"]} == {"length"}
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 27, 36)
    ids = [generator.prompts.tokenize(one) for one in PROMPTS]
    assert [one["text"] for one in ask(client, prompt=ids, max_tokens=9).json()["choices"]] == [
        one.text for one in expected
    ]
    assert ask(client, prompt=ids[0], max_tokens=9).json()["choices"][0]["text"] == expected[0].text
    assert ask(client, prompt="w9").json()["usage"]["completion_tokens"] == 16


def test_streams_join_to_the_same(client, generator):
    expected = [one.text for one in generator.complete(PROMPTS, max_new_tokens=9)]
    found = events(ask(client, prompt=PROMPTS, max_tokens=9, stream=True, stream_options={"include_usage": True}))
    texts = ["", "", ""]
    for one in found[:-1]:
        (choice,) = one["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == expected
    assert [one["choices"][0]["finish_reason"] for one in found[:-1]].count("length") == 3
    assert (found[-1]["choices"], found[-1]["usage"]["completion_tokens"]) == ([], 27)
    assert len({one["id"] for one in found}) == 1
    assert "usage" not in events(ask(client, prompt="w9", stream=True))[-1]


def test_stop_and_seed(client, generator):
    words = generator.generate(PROMPTS[0], max_new_tokens=9).split()
    stop = next(word for word in words[2:] if words.index(word) >= 2)
    for given in (stop, ["nothing", stop]):
        choice = ask(client, prompt=PROMPTS[0], max_tokens=9, stop=given).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert choice["text"].split() == words[: words.index(stop)]
    options = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    expected = generator.generate(PROMPTS[0], max_new_tokens=9, **options)
    found = [ask(client, prompt=PROMPTS[0], max_tokens=9, **options).json()["choices"][0]["text"] for _ in range(2)]
    assert found == [expected, expected]
    greedy = ask(client, prompt=PROMPTS[0], max_tokens=9, temperature=0, top_p=0.5).json()["choices"][0]["text"]
    assert greedy.split() == words


def test_chats(client, generator):
    parts = [{"type": "text", "text": "w7 "}, {"type": "text", "text": "w8"}]
    messages = [{"role": "system", "content": "w6"}, {"role": "user", "content": parts}]
    plain = [messages[0], {"role": "user", "content": "w7 w8"}]
    expected = generator.chat(plain, max_new_tokens=6)
    asked = {"model": "writer", "messages": messages, "max_completion_tokens": 6}
    answer = client.post("/v1/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": expected}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == 5
    found = events(client.post("/v1/chat/completions", json=asked | {"stream": True}))
    deltas = [one["choices"][0]["delta"] for one in found]
    assert "".join(one["content"] for one in deltas) == expected
    assert [one.get("role") for one in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert found[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"prompt": [1, 97]}, 422, "from 0 to 96"),
        ({"prompt": [[]]}, 422, "has no tokens"),
        ({"prompt": ["w1", 3]}, 422, "must be a text"),
        ({"prompt": "w1 " * 64}, 413, "context of 64 tokens"),
        ({"prompt": "w1", "max_tokens": 64}, 413, "context of 64 tokens"),
        ({"prompt": "w1", "max_tokens": 0}, 422, "max_tokens"),
        ({"prompt": "w1", "stop": ["a", ""]}, 422, "empty string"),
        ({"prompt": "w1", "top_p": 0.5}, 422, "give temperature"),
        ({"prompt": "w1", "temperature": -1}, 422, "temperature"),
        ({"prompt": "w1", "n": 2}, 422, "$.n"),
        ({"prompt": "w1", "logprobs": 3}, 422, "logprobs"),
        ({"prompt": "w1", "stream": True, "max_tokens": 64}, 413, "context"),
    ],
)
def test_refusals(client, options, status, message):
    answer = ask(client, **options)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_chats_that_cannot_be(client):
    asked = {"model": "writer", "messages": [{"role": "user", "content": "w7"}]}
    both = client.post("/v1/chat/completions", json=asked | {"max_tokens": 3, "max_completion_tokens": 3})
    assert both.status_code == 422
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert client.post("/v1/chat/completions", json=asked | {"messages": image}).status_code == 422
    assert client.post("/v1/chat/completions", json=asked | {"messages": []}).status_code == 422
