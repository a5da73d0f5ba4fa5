"""The whole search on a tiny classifier and a tiny encoder, with what takes time made short."""

import html
import json

import pytest

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from short_search import make_short
from tiny_runs import WORDS, tiny, write_reviews
from typer.testing import CliRunner

from sparsekit.choose import finishing, proposing
from sparsekit.choose.points import Point
from sparsekit.cli import app
from sparsekit.engine import Encoder
from sparsekit.recipes import read_recipe


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    make_short(monkeypatch, tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["choose", *map(str, arguments)], catch_exceptions=False)


def points_of(out):
    found = json.loads((out / "choose.json").read_text())
    return found, {one["name"]: Point(**one) for one in found["points"]}


def test_a_classifier_gets_points_a_recommendation_and_recipes_that_run(tmp_path):
    data, test = write_reviews(tmp_path / "data.jsonl"), write_reviews(tmp_path / "test.jsonl")
    out = tmp_path / "out"
    arguments = (tiny(tmp_path / "model", "classification"), "--data", data, "--test", test, "--out", out)
    shown = run(*arguments, "--minutes", 10, "--max-tokens", 16, "--max-loss", 1).output
    found, points = points_of(out)
    assert {"torch", "float32, dense", "int8, dense"} < set(points)
    assert found["recommended"] in points
    assert points[found["dense"]].engine in ("torch", "sparsekit-engine")
    page = (out / "report.html").read_text()
    assert all(name in page for name in points)
    assert "<svg" in page
    scored = [f"{point.name}: " for point in points.values() if point.quality is not None]
    assert all(f"<title>{html.escape(start)}" in page for start in scored)
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert "Reproduce" in page
    told = " ".join(shown.split())
    assert f"Take {found['recommended']}: it keeps" in told
    assert "report.html" in told
    made = [point for point in points.values() if point.recipe is not None]
    assert len(made) >= 3
    for point in made:
        recipe = read_recipe(out / point.recipe)
        assert recipe.task == "classification"
        folder = out / "models" / point.recipe.split("/")[1].removesuffix(".yaml")
        assert len(Encoder(folder).classify(["a good film"])) == 1
        assert 0.0 <= point.quality <= 1.0
        assert point.unseen["value"] >= 0.0


@pytest.mark.slow
def test_a_search_goes_on_with_what_it_has(tmp_path, monkeypatch):
    data, out = write_reviews(tmp_path / "data.jsonl"), tmp_path / "out"
    arguments = (tiny(tmp_path / "model", "classification"), "--data", data, "--out", out, "--minutes", 10)
    run(*arguments)
    first, _ = points_of(out)

    def refuse(*_, **__):
        raise AssertionError

    for module, name in ((proposing, "measure_times"), (proposing, "find_solutions"), (finishing, "compress")):
        monkeypatch.setattr(module, name, refuse)
    run(*arguments)
    again, _ = points_of(out)
    assert [one["name"] for one in again["points"]] == [one["name"] for one in first["points"]]
    assert [one["quality"] for one in again["points"]] == [one["quality"] for one in first["points"]]


@pytest.mark.slow
def test_an_encoder_is_selected_by_pairs(tmp_path):
    rows = [
        {"text": f"a {word} film {number}", "pair": f"{word} story {number}"} for word in WORDS for number in range(5)
    ]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tiny(tmp_path / "model", "embedding")
    run(model, "--data", data, "--out", out, "--task", "embedding", "--pair", "pair", "--minutes", 10)
    found, points = points_of(out)
    assert found["score"] == "mrr"
    assert {"torch", "float32, dense", "int8, dense"} < set(points)
    made = [point for point in points.values() if point.recipe is not None]
    assert all(0.0 < point.quality <= 1.0 and point.unseen is None for point in made)


@pytest.mark.slow
def test_an_encoder_without_pairs_is_selected_by_fidelity(tmp_path):
    data, test, out = write_reviews(tmp_path / "data.jsonl"), write_reviews(tmp_path / "test.jsonl"), tmp_path / "out"
    model = tiny(tmp_path / "model", "embedding")
    shown = run(model, "--data", data, "--test", test, "--out", out, "--task", "embedding", "--minutes", 10).output
    found, points = points_of(out)
    assert found["score"] == "fidelity"
    assert points["float32, dense"].quality == pytest.approx(1.0, abs=1e-5)
    assert all(-1.0 <= point.quality <= 1.0 + 1e-5 for point in points.values())
    assert all(point.unseen["value"] <= 1.0 + 1e-5 for point in points.values() if point.recipe)
    assert "fidelity to the dense model" in " ".join(shown.split())
    assert "mean cosine" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "language"), "task must be one of classification, embedding, got 'language'"),
        (("--max-loss", "0.01", "--target-speedup", "0"), "Invalid value"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(tmp_path, options, message):
    data, out = write_reviews(tmp_path / "data.jsonl"), tmp_path / "out"
    model = tiny(tmp_path / "model", "classification")
    try:
        shown = run(model, "--data", data, "--out", out, *options).output
    except ValueError as error:
        shown = str(error)
    assert message in shown
    assert not out.exists()
