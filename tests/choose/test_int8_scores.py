"""Scores of dense int8 engines: their hidden states through the dense model's own pooling and head."""

from dataclasses import replace

import pytest
import torch
import transformers

pytest.importorskip("datasets")

from tiny_encoders import encoder
from tiny_runs import tiny

from sparsekit.bench.models.hidden_outputs import PaddedStates, hidden_states_of
from sparsekit.bench.models.peers import MODEL_PEERS
from sparsekit.bench.models.problem import BoundCall, HiddenState, ModelProblem
from sparsekit.bench.report.subject import encoder_of
from sparsekit.choose.engines import Race
from sparsekit.choose.fidelity import FIDELITY, prepare_scored
from sparsekit.choose.int8_scores import int8_scores
from sparsekit.recipes.data.splits import Splits
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.yaml_file import make_recipe

TEXTS = ["a good film", "a bad story of an actor", "great", "awful scene"] * 5
LABELS = ["pos", "neg", "neg", "pos"] * 5
CLASSES = {"bert": "Bert", "deberta-v2": "DebertaV2", "distilbert": "DistilBert", "electra": "Electra",
           "modernbert": "ModernBert", "mpnet": "MPNet", "roberta": "Roberta"}  # fmt: skip


def padded_batch(texts=5, tokens=9):
    ids = torch.randint(5, 90, (texts, tokens), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(tokens) < torch.arange(2, 2 + texts).unsqueeze(1)).long()
    return ids * mask + (1 - mask), mask


@pytest.mark.parametrize("family", CLASSES)
@torch.inference_mode()
def test_a_head_over_the_hidden_states_gives_the_models_logits(family):
    model = encoder(family, f"{CLASSES[family]}ForSequenceClassification", num_labels=3, pad_token_id=1)
    alone = HiddenState(encoder_of(encoder(family, f"{CLASSES[family]}ForSequenceClassification", num_labels=3,
                                           pad_token_id=1)))  # fmt: skip
    ids, mask = padded_batch()
    expected = model(input_ids=ids, attention_mask=mask).logits
    with hidden_states_of(model, alone):
        found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, expected)
    with hidden_states_of(model, lambda ids, mask: torch.ones_like(alone(ids, mask))):
        assert not torch.allclose(model(input_ids=ids, attention_mask=mask).logits, expected)
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, expected)


def in_torch(problem, texts=None, tokens=None):
    """An engine that was compiled for one size."""

    def bind(ids, mask):
        assert ids.shape == mask.shape == problem.input_ids.shape
        return lambda: problem.model(ids, mask).numpy()

    return BoundCall(bind, problem)


@torch.inference_mode()
def test_batches_of_any_size_run_in_an_engine_of_one():
    model = HiddenState(transformers.BertModel(encoder("bert").config, add_pooling_layer=False))
    call = in_torch(ModelProblem(model, *(torch.ones(2, 12, dtype=torch.int64) for _ in "im"), 1))
    ids, mask = padded_batch()
    found, expected = PaddedStates(call, 2, 12)(ids, mask), model(ids, mask)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])


def job_and_race(folder, task, rows, engines):
    data = {"batch_size": 8, "max_tokens": 12} | ({"pair": "pair"} if rows.pairs else {})
    recipe = make_recipe({"task": task, "data": data, "stages": ["evaluate"]})
    job = prepare_scored(recipe, tiny(folder / "model", task), Splits(None, None, rows), folder)
    return job, Race(HiddenState(encoder_of(job.given())), 8, 1, (), engines)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("classification", Rows(TEXTS, [], LABELS)),
        ("embedding", Rows(TEXTS[:10], TEXTS[10:], [])),
        ("embedding", Rows(TEXTS, [], [])),
    ],
)
def test_an_engine_as_exact_as_torch_scores_as_torch(tmp_path, monkeypatch, task, rows):
    job, race = job_and_race(tmp_path, task, rows, ["openvino-int8"])
    peer = replace(MODEL_PEERS["openvino-int8"], prepare=in_torch, modules=())
    monkeypatch.setitem(MODEL_PEERS, "openvino-int8", peer)
    scores = int8_scores(race, job, ["torch", "openvino-int8"])
    assert scores == {"openvino-int8": pytest.approx(next(iter(job.scores().values())), abs=1e-6)}


def test_engines_that_fail_and_pairs_that_need_token_types_are_not_scored(tmp_path, monkeypatch, capsys):
    job, race = job_and_race(tmp_path, "classification", Rows(TEXTS, [], LABELS), ["openvino-int8"])

    def fail(problem):
        raise RuntimeError("no such operator")

    monkeypatch.setitem(MODEL_PEERS, "openvino-int8", replace(MODEL_PEERS["openvino-int8"], prepare=fail, modules=()))
    assert int8_scores(race, job, ["openvino-int8"]) == {}
    assert "no such operator" in capsys.readouterr().err
    job, race = job_and_race(tmp_path, "classification", Rows(TEXTS, TEXTS, LABELS), ["openvino-int8"])
    assert int8_scores(race, job, ["openvino-int8"]) == {}
    assert "do not tell the two texts of a pair apart" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime-int8", "openvino-int8", "ctranslate2-int8"])
def test_engines_that_are_installed_keep_most_of_the_vectors(tmp_path, engine):
    if MODEL_PEERS[engine].missing:
        pytest.skip(f"{engine} is not installed")
    job, race = job_and_race(tmp_path, "embedding", Rows(TEXTS, [], []), [engine])
    race = replace(race, calibration=((101, 2204, 2143, 102), (101, 2919, 102)))
    scores = int8_scores(race, job, [engine])
    assert next(iter(job.scores())) == FIDELITY
    assert scores[engine] == pytest.approx(1.0, abs=0.05)
