"""Embeddings, labels and ranks over HTTP equal those of `Encoder`."""

import base64

import numpy as np
import pytest

from sparsekit.engine import Encoder

TEXTS = ["A film.", "", "Größe, naïve café — 你好 world!", "the story of an actor " * 3, "A film."]
LONG = "a film " * 50


def vectors(answer):
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [one["index"] for one in data] == list(range(len(data)))
    return np.array([one["embedding"] for one in data])


@pytest.fixture(scope="module")
def encoder(folders):
    return Encoder(folders["embedder"])


def test_vectors_of_texts(client, encoder):
    answer = client.post("/v1/embeddings", json={"model": "embedder", "input": TEXTS})
    np.testing.assert_allclose(vectors(answer), encoder.encode(TEXTS), rtol=1e-4, atol=1e-5)
    one = client.post("/v1/embeddings", json={"model": "embedder", "input": TEXTS[0]})
    np.testing.assert_allclose(vectors(one), encoder.encode(TEXTS[:1]), rtol=1e-4, atol=1e-5)
    count = sum(len(tokens.ids) for tokens in encoder.tokenize(TEXTS))
    assert answer.json()["usage"] == {"prompt_tokens": count, "total_tokens": count}
    assert (answer.json()["model"], answer.json()["object"]) == ("embedder", "list")
    assert "truncated" not in answer.text


def test_vectors_of_token_ids(client, encoder):
    ids = [one.ids.tolist() for one in encoder.tokenize(TEXTS)]
    answer = client.post("/v1/embeddings", json={"model": "embedder", "input": ids})
    np.testing.assert_allclose(vectors(answer), encoder.encode(TEXTS), rtol=1e-4, atol=1e-5)
    one = client.post("/v1/embeddings", json={"model": "embedder", "input": ids[3]})
    np.testing.assert_allclose(vectors(one), encoder.encode(TEXTS[3:4]), rtol=1e-4, atol=1e-5)


def test_base64_is_float32_little_endian(client):
    asked = {"model": "embedder", "input": TEXTS}
    numbers = vectors(client.post("/v1/embeddings", json=asked))
    answer = client.post("/v1/embeddings", json=asked | {"encoding_format": "base64"})
    found = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer.json()["data"]]
    np.testing.assert_allclose(found, numbers, rtol=1e-6)


def test_fewer_dimensions_are_normalized(client, encoder):
    answer = client.post("/v1/embeddings", json={"model": "embedder", "input": TEXTS, "dimensions": 5})
    kept = encoder.encode(TEXTS)[:, :5]
    np.testing.assert_allclose(vectors(answer), kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-4)
    for dimensions in (0, 37, -1, 1.5):
        refused = client.post("/v1/embeddings", json={"model": "embedder", "input": "a", "dimensions": dimensions})
        assert refused.status_code == 422


def test_a_long_text_is_refused_unless_it_may_be_truncated(client, encoder):
    asked = {"model": "embedder", "input": ["a film", LONG]}
    refused = client.post("/v1/embeddings", json=asked)
    assert refused.status_code == 413
    assert "text 1 has more than the 45 tokens that embedder takes" in refused.json()["error"]["message"]
    answer = client.post("/v1/embeddings", json=asked | {"truncate": True})
    with pytest.warns(UserWarning, match="lost the rest"):
        np.testing.assert_allclose(vectors(answer), encoder.encode(asked["input"]), rtol=1e-4, atol=1e-5)
    assert [one.get("truncated") for one in answer.json()["data"]] == [None, True]


def test_labels_of_texts_and_pairs(client, folders):
    texts = ["A film.", ["a request?", "No, bad."], LONG]
    expected = Encoder(folders["classifier"]).classify(["A film.", ("a request?", "No, bad.")])
    assert client.post("/classify", json={"model": "classifier", "input": texts}).status_code == 413
    answer = client.post("/classify", json={"model": "classifier", "input": texts, "truncate": True})
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [one.get("truncated", False) for one in data] == [False, False, True]
    for found, one in zip(data, expected, strict=False):
        assert found["label"] == one.label
        assert found["score"] == pytest.approx(one.score, abs=1e-5)
        assert found["probabilities"] == pytest.approx(dict(one.probabilities), abs=1e-5)
    one = client.post("/classify", json={"model": "classifier", "input": "A film."})
    assert one.json()["data"][0]["label"] == expected[0].label


def test_documents_are_ranked(client, folders):
    documents = ["good", "A film.", "the story of an actor", "bad"]
    scores = Encoder(folders["reranker"]).rank("a film?", documents)
    asked = {
        "model": "reranker",
        "query": "a film?",
        "documents": [documents[0], *({"text": d} for d in documents[1:])],
    }
    found = client.post("/rerank", json=asked).json()["results"]
    assert [one["index"] for one in found] == np.argsort(-scores, kind="stable").tolist()
    assert [one["relevance_score"] for one in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    assert "document" not in found[0]
    best = client.post("/rerank", json=asked | {"top_n": 2, "return_documents": True}).json()["results"]
    assert [one["document"]["text"] for one in best] == [documents[number] for number in np.argsort(-scores)[:2]]
    assert client.post("/rerank", json=asked | {"documents": ["a", LONG]}).status_code == 413
    cut = client.post("/rerank", json=asked | {"documents": ["a", LONG], "truncate": True}).json()["results"]
    assert {one["index"]: one.get("truncated", False) for one in cut} == {0: False, 1: True}


def test_models_of_another_task(client):
    for path, asked in (
        ("/v1/embeddings", {"model": "classifier", "input": "a"}),
        ("/v1/embeddings", {"model": "writer", "input": "a"}),
        ("/classify", {"model": "embedder", "input": "a"}),
        ("/rerank", {"model": "classifier", "query": "a", "documents": ["b"]}),
        ("/v1/completions", {"model": "embedder", "prompt": "a"}),
    ):
        answer = client.post(path, json=asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_task"), path


def test_times_in_headers(client):
    answer = client.post("/v1/embeddings", json={"model": "embedder", "input": TEXTS}, headers={"x-request-id": "mine"})
    stages = [float(answer.headers[f"x-{name}-time"]) for name in ("tokenization", "queue", "inference")]
    assert all(stage >= 0 for stage in stages)
    assert 0 < sum(stages) <= float(answer.headers["x-total-time"])
    assert int(answer.headers["x-compute-tokens"]) == answer.json()["usage"]["total_tokens"]
    assert answer.headers["x-request-id"] == "mine"
