"""A table of texts and a tiny classifier for the tests of recipes."""

import pytest


@pytest.fixture
def reviews(tmp_path):
    from tiny_runs import write_reviews

    return write_reviews(tmp_path / "reviews.jsonl")


@pytest.fixture
def classifier(tmp_path):
    from tiny_runs import tiny

    return tiny(tmp_path / "classifier", "classification")
