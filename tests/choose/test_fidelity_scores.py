"""Encoders scored by texts alone: their vectors against the dense model's."""

import json

import pytest
import torch

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from tiny_runs import tiny

from sparsekit.choose.fidelity import FIDELITY, prepare_scored
from sparsekit.recipes.data.splits import Splits
from sparsekit.recipes.data.tables import Rows
from sparsekit.recipes.tasks.embedding import PairSet
from sparsekit.recipes.yaml_file import make_recipe

TEXTS = ["a good film", "a bad story of an actor", "great", "awful scene"] * 5
RECIPE = make_recipe({"task": "embedding", "data": {"batch_size": 8, "max_tokens": 12}, "stages": ["evaluate"]})


@pytest.fixture
def folder(tmp_path):
    return tiny(tmp_path / "model", "embedding")


def test_the_dense_model_has_all_its_fidelity(tmp_path, folder):
    job = prepare_scored(RECIPE, folder, Splits(None, None, Rows(TEXTS, [], [])), tmp_path)
    scores = job.scores_in(folder)
    assert scores[FIDELITY] == pytest.approx(1.0, abs=1e-5)
    assert scores["intervals"][FIDELITY] == pytest.approx([1.0, 1.0], abs=1e-5)


def test_fidelity_is_the_mean_cosine_of_the_vectors(tmp_path, folder):
    job = prepare_scored(RECIPE, folder, Splits(None, None, Rows(TEXTS, [], [])), tmp_path)
    other, tokenizer = job.task.load(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in other.encoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))

    def vector(model, text):
        with torch.inference_mode():
            return model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)

    cosines = [torch.cosine_similarity(vector(job.model, text), vector(other, text)).item() for text in TEXTS]
    found = job.scores_of(job.predictions(other))[FIDELITY]
    assert found == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
    assert found < 0.999


def test_pairs_are_scored_as_pairs(tmp_path, folder):
    rows = Rows(TEXTS[:10], TEXTS[10:], [])
    job = prepare_scored(RECIPE, folder, Splits(None, None, rows), tmp_path)
    assert isinstance(job.test, PairSet)
    assert next(iter(job.scores())) == "mrr"


def test_similarities_without_pairs_do_not_matter(tmp_path, folder):
    job = prepare_scored(RECIPE, folder, Splits(None, None, Rows(TEXTS, [], ["x"] * len(TEXTS))), tmp_path)
    assert json.loads(json.dumps(job.scores()))[FIDELITY] == pytest.approx(1.0, abs=1e-5)
