"""The page that a run leaves beside its model: what its report says, and nothing measured again."""

import json
import re
import sys

import numpy as np
import pytest

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from tiny_runs import recipe_of, tiny, write_reviews
from typer.testing import CliRunner

from sparsekit.cli import app
from sparsekit.recipes import compress
from sparsekit.recipes.report.confidence_intervals import paired_differences
from sparsekit.recipes.report.page import converted_layers
from sparsekit.recipes.tasks import TASKS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dense classifier, what compress made of it, and reviews."""
    folder = tmp_path_factory.mktemp("page")
    reviews = write_reviews(folder / "reviews.jsonl")
    tiny(folder / "dense", "classification", num_hidden_layers=2, hidden_size=64, intermediate_size=128)
    stages = ({"prune": {"sparsity": 0.7, "samples": 16}}, {"convert": {"dtype": "int8", "min_sparsity": 0.3}})
    compress(folder / "dense", recipe_of("classification", *stages), reviews, folder / "small", test=reviews)
    return folder


def test_compress_writes_the_page_from_what_it_has(place):
    text = (place / "small" / "report.html").read_text()
    report = json.loads((place / "small" / "report.json").read_text())
    score = report["scores"]["accuracy"]
    assert f"{score:.3f}" in text
    value, ends = (report["comparison"]["difference"][name] for name in ("value", "interval"))
    assert value == score - report["comparison"]["rows"][0]["score"]
    assert ends[0] <= value <= ends[1]
    anchors = re.findall(r'<section id="([\w-]+)"', text)
    assert anchors == ["quality", "speed", "layers", "memory-and-disk", "not-on-this-page", "environment", "reproduce"]
    for words in ("bert.encoder.layer.*.attention.self.query (2)", "int8", "sparsekit in PyTorch", "48 texts"):
        assert words in text
    assert f"sparsekit report {place / 'small'} --task classification --dense {place / 'dense'}" in text
    assert f"sparsekit compress {place / 'dense'} --recipe {place / 'small' / 'recipe.yaml'}" in text
    ours = report["comparison"]["rows"][-1]["one_text_ms"]
    assert f"{1e3 / ours:,.0f}" in text or f"{1e3 / ours:.3g}" in text, "texts/s of one text, not measured again"


def test_compress_says_where_the_page_is(place, tmp_path):
    arguments = [place / "dense", "--data", place / "reviews.jsonl", "--out", tmp_path / "pruned", "--sparsity", "0.5"]
    told = CliRunner().invoke(app, ["prune", *map(str, arguments)], catch_exceptions=False)
    assert str(tmp_path / "pruned" / "report.html") in told.stdout.replace("\n", "")
    text = (tmp_path / "pruned" / "report.html").read_text()
    assert "No stage converted layers" in text
    assert "50.0%" in text


def test_a_run_without_jinja2_goes_on_without_its_page(place, tmp_path, monkeypatch):
    from sparsekit.report import page

    page._template.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    recipe = recipe_of("classification", {"prune": {"sparsity": 0.5, "criterion": "magnitude"}})
    with pytest.warns(UserWarning, match=r"report.html is not written.*\[report\]"):
        compress(place / "dense", recipe, place / "reviews.jsonl", tmp_path / "out")
    assert (tmp_path / "out" / "report.json").exists()
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    "stages", [None, [], "convert", [1], [{"layers": 3}], [{"layers": [{"name": 1}]}], [{"layers": [["a"]]}]]
)
def test_a_report_of_others_has_no_layers(stages):
    assert converted_layers(stages) == []


def test_a_paired_difference_is_narrower_than_one_of_strangers():
    numbers = np.random.default_rng(0)
    labels = numbers.integers(2, size=400)
    dense = np.where(numbers.random(400) < 0.8, labels, 1 - labels)
    small = np.where(numbers.random(400) < 0.02, 1 - dense, dense)
    task = TASKS["classification"]
    before, after = (np.column_stack([classes, labels]) for classes in (dense, small))
    value, (low, high) = paired_differences(task, before, after)["accuracy"]
    assert value == (small == labels).mean() - (dense == labels).mean()
    assert low <= value <= high
    changes = (small == labels).astype(float) - (dense == labels)
    deviation = 1.96 * changes.std() / 20
    assert [low, high] == pytest.approx([value - deviation, value + deviation], abs=0.3 * deviation)
    strangers = paired_differences(task, before, np.roll(after, 7, axis=0))["accuracy"][1]
    assert high - low < 0.6 * (strangers[1] - strangers[0])
    same = paired_differences(task, before, before)["accuracy"]
    assert same == (0.0, [0.0, 0.0])
    with pytest.raises(ValueError, match="same test data, got 400 and 399 rows"):
        paired_differences(task, before, after[:-1])
