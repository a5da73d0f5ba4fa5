"""Classifiers, rerankers and token classifiers: logits, labels, scores and spans equal those of transformers."""

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder
from tiny_encoders import ENCODERS, assert_close, bert_with_tokenizer, change_json, encoder, sequences

from sparsekit import convert, prune, save
from sparsekit.bench.minilm import minilm_folder
from sparsekit.engine import Encoder, compile_model

TEXTS = ["A film.", "Größe, naïve café — 你好 world!", "the story of an actor " * 3, "good", "A film."]
PAIRS = [("a film", "the story of an actor"), ("good?", "No, bad, and long. " * 3), ("", "film")]
NAMES = ["B-PER", "I-PER", "O", "LOC"]


def assert_same_logits(found: Encoder, model) -> None:
    ids = sequences()
    for one, logits in zip(ids, found.logits(ids), strict=True):
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([one])).logits[0].numpy()
        assert_close(logits, expected)


@pytest.mark.parametrize("end", ["ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("family", ENCODERS)
def test_logits_of_every_head(family, end, tmp_path):
    model = encoder(family, ENCODERS[family][0].removesuffix("Model") + end, num_labels=5)
    model.save_pretrained(tmp_path / "plain")
    assert_same_logits(Encoder(tmp_path / "plain"), model)
    prune(model, 0.7)
    save(convert(model, min_sparsity=0.5), tmp_path / "sparse")
    found = Encoder(tmp_path / "sparse")
    assert_same_logits(found, model)
    assert found.task == ("classification" if "Sequence" in end else "token_classification")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return bert_with_tokenizer(tmp_path_factory.mktemp("text") / "model", "BertForSequenceClassification", num_labels=3)


@pytest.mark.parametrize("problem", [None, "single_label_classification", "multi_label_classification"])
def test_labels_are_those_of_the_pipeline(problem, classifier, tmp_path):
    folder = tmp_path / "model"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier)
    model.config.problem_type = problem
    model.config.id2label = {0: "bad", 1: "so-so", 2: "good"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    expected = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)(TEXTS)
    compile_model(folder, tmp_path / "model.bin")
    for found in (Encoder(folder), Encoder(tmp_path / "model.bin", tokenizer=folder / "tokenizer.json")):
        for one, scores in zip(found.classify(TEXTS, batch_tokens=9), expected, strict=True):
            assert one.label == scores[0]["label"]
            assert one.score == one.probabilities[one.label]
            assert list(one.probabilities) == ["bad", "so-so", "good"]
            assert one.probabilities == pytest.approx({s["label"]: s["score"] for s in scores}, abs=1e-5)
    assert found.classify([]) == []


def test_pairs_have_token_types(classifier):
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    for pair, found in zip(PAIRS, Encoder(classifier).classify(PAIRS), strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(*pair, return_tensors="pt")).logits
        assert np.array(list(found.probabilities.values())) == pytest.approx(logits.softmax(1)[0].numpy(), abs=1e-5)


@pytest.mark.parametrize("activation", [None, torch.nn.Sigmoid(), torch.nn.Identity()])
def test_ranks_as_a_cross_encoder(activation, tmp_path):
    folder = bert_with_tokenizer(tmp_path / "plain", "BertForSequenceClassification", num_labels=1)
    model = CrossEncoder(str(folder), device="cpu", activation_fn=activation)
    model.save_pretrained(str(tmp_path / "model"))
    query, documents = "a film", [second for _, second in PAIRS]
    expected = model.predict([(query, document) for document in documents])
    found = Encoder(tmp_path / "model").rank(query, documents)
    assert found == pytest.approx(expected, abs=1e-5)
    assert Encoder(tmp_path / "model").rank(query, []).shape == (0,)


def spread_labels(folder):
    """Make all labels of a token classifier appear."""
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)
        model.classifier.bias.sub_(model(torch.tensor(sequences((33,), 30_000))).logits.mean((0, 1)))
    model.save_pretrained(folder)


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_spans_are_those_of_the_pipeline(aggregation, tmp_path):
    folder = bert_with_tokenizer(tmp_path / "model", "BertForTokenClassification", num_labels=4)
    change_json(folder / "config.json", id2label=dict(enumerate(NAMES)))
    spread_labels(folder)
    texts = [*TEXTS, "unbelievable cinematographers everywhere", "Ada Lovelace met Babbage in London"]
    tagger = transformers.pipeline("token-classification", str(folder), aggregation_strategy=aggregation)
    found = Encoder(folder).classify_tokens(texts, aggregation=aggregation, batch_tokens=20)
    spans = 0
    for text, ours, theirs in zip(texts, found, tagger(texts), strict=True):
        assert [(s.label, s.start, s.end) for s in ours] == [
            (t.get("entity_group", t.get("entity")), t["start"], t["end"]) for t in theirs
        ]
        assert [s.score for s in ours] == pytest.approx([float(t["score"]) for t in theirs], abs=1e-5)
        assert [s.text for s in ours] == [text[s.start : s.end] for s in ours]
        spans += len(ours)
    assert spans > 5
    assert Encoder(folder).classify_tokens([]) == []


def test_a_given_pooling_leaves_the_head_out(classifier):
    found = Encoder(classifier, pooling="mean")
    assert found.task == "embedding"
    assert_close(found.encode("film"), found.run([[101, 2143, 102]])[0].mean(0))


def test_other_tasks_are_refused(classifier, tmp_path):
    found = Encoder(classifier)
    with pytest.raises(ValueError, match="task is classification, not embedding; classify or rank gives labels"):
        found.encode("film")
    with pytest.raises(ValueError, match="not token_classification"):
        found.classify_tokens(["film"])
    with pytest.raises(ValueError, match="one logit, got one of 3 labels; use classify"):
        found.rank("film", ["actor"])
    with pytest.raises(TypeError, match="put it into a list"):
        found.classify("film")
    with pytest.raises(TypeError, match="str or pairs of str, got int"):
        found.classify(["film", 3])
    with pytest.raises(ValueError, match="task is embedding, not classification"):
        Encoder(minilm_folder()).classify(["film"])
    tagger = Encoder(bert_with_tokenizer(tmp_path / "tokens", "BertForTokenClassification"))
    with pytest.raises(ValueError, match="aggregation must be one of none, simple"):
        tagger.classify_tokens(["film"], aggregation="best")


def test_what_the_engine_cannot_say_of_logits_is_refused(tmp_path):
    folder = bert_with_tokenizer(tmp_path / "model", "BertForSequenceClassification", num_labels=1)
    change_json(folder / "config.json", problem_type="regression")
    with pytest.raises(ValueError, match="predicts a number"):
        Encoder(folder).classify(["film"])
    change_json(folder / "config.json", sentence_transformers={"activation_fn": "mine.Own"})
    with pytest.raises(ValueError, match=r"does not run ranking by 'mine\.Own'"):
        Encoder(folder).rank("film", ["actor"])
    change_json(folder / "config.json", id2label=[1, 2])
    with pytest.raises(ValueError, match="id2label"):
        Encoder(folder).rank("film", ["actor"])
