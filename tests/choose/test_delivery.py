"""Compressing to targets: which point becomes the folder, and what is refused."""

import json

import pytest

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from dataclasses import replace

from short_search import make_short
from tiny_runs import tiny, write_reviews
from typer.testing import CliRunner

from sparsekit.choose import delivery
from sparsekit.choose.delivery import TargetsNotMetError, compress_to_targets
from sparsekit.choose.points import Point
from sparsekit.choose.request import Request
from sparsekit.choose.search import Found
from sparsekit.choose.targets import Targets
from sparsekit.cli import app
from sparsekit.engine import Encoder
from sparsekit.recipes import read_recipe

DENSE = Point("torch", "torch", 0.9, None, 10.0, 100.0, False, 90_000_000, None)
OURS = replace(DENSE, engine="sparsekit-engine", disk_bytes=20_000_000, memory_bytes=20_000_000)
GOOD = replace(OURS, name="int8, 2x", one_text_ms=5.0, texts_per_second=200.0, recipe="recipes/1.yaml")
FAST = replace(OURS, name="int8, 4x", quality=0.8, one_text_ms=2.5, texts_per_second=400.0, recipe="recipes/2.yaml")
#: Faster than all that loses nothing: what `choose` recommends, and what no folder can be.
PEER = replace(DENSE, name="openvino", one_text_ms=1.0, texts_per_second=1000.0)


def request(folder, **targets):
    """Of a model that is never opened: the search is replaced."""
    (folder / "dense").mkdir(exist_ok=True)
    return Request(
        folder / "dense", folder / "data", folder / "out", "classification", None, {}, 1.0, 1, Targets(**targets), 0
    )


@pytest.fixture(autouse=True)
def searched(monkeypatch):
    """A search that wrote a folder of each model."""

    def search(request):
        for number in ("1", "2"):
            folder = request.out / "models" / number
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("config.json", "recipe.yaml", "report.html"):
                (folder / name).write_text(number)
        for name in ("choose.json", "report.html"):
            (request.out / name).write_text("search")
        return Found([PEER, DENSE, GOOD, FAST], PEER, PEER, True, "", [], "accuracy")

    monkeypatch.setattr(delivery, "search", search)


@pytest.mark.parametrize(("targets", "number"), [({}, "1"), ({"loss": 0.2}, "2"), ({"speedup": 0.2, "loss": 1.0}, "2")])
def test_the_fastest_compressed_model_that_keeps_to_the_targets_becomes_the_folder(tmp_path, targets, number):
    found = compress_to_targets(request(tmp_path, **targets))
    assert found.chosen.recipe == f"recipes/{number}.yaml"
    assert found.meets_targets
    out = tmp_path / "out"
    assert [(out / name).read_text() for name in ("config.json", "recipe.yaml", "report.html")] == [number] * 3
    assert [(out / name).read_text() for name in ("choose.json", "choose.html")] == ["search"] * 2


def test_another_target_replaces_the_model_and_keeps_the_work(tmp_path):
    compress_to_targets(request(tmp_path))
    compress_to_targets(request(tmp_path, loss=0.2))
    assert (tmp_path / "out" / "config.json").read_text() == "2"
    assert (tmp_path / "out" / "work" / "choose" / "models" / "1" / "config.json").exists()


def test_targets_that_nothing_meets_name_the_nearest_and_leave_the_old_model(tmp_path):
    compress_to_targets(request(tmp_path))
    with pytest.raises(TargetsNotMetError, match=r"Nearest is int8, 2x, which keeps 100\.0% .* is 0\.20 times as fast"):
        compress_to_targets(request(tmp_path, speedup=10.0))
    assert (tmp_path / "out" / "config.json").read_text() == "1"


def test_a_dense_engine_that_is_recommended_is_named(tmp_path):
    assert compress_to_targets(request(tmp_path)).advice.endswith(
        "recipe.yaml makes it. The dense model in openvino meets the targets and is the fastest that does: 1.00 times "
        "as fast as openvino."
    )
    with pytest.raises(TargetsNotMetError, match=r"^No compressed model meets .* The dense model in openvino meets"):
        compress_to_targets(request(tmp_path, speedup=1.0))


def test_the_dense_model_is_not_replaced(tmp_path):
    wanted = request(tmp_path)
    with pytest.raises(ValueError, match="is the model, which the compressed model would replace"):
        compress_to_targets(replace(wanted, out=wanted.model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected --recipe or a target"),
        (("--task", "embedding"), "expected --recipe or a target"),
        (("--recipe", "recipe.yaml", "--max-loss", "0.1"), "do not go with --recipe"),
        (("--recipe", "recipe.yaml", "--minutes", "5"), "do not go with --recipe"),
        (("--max-loss", "0.1", "--validation", "rows.csv"), "--validation is for stages of a recipe"),
    ],
)
def test_a_recipe_or_targets_and_not_both(options, message):
    arguments = ["compress", "model", "--data", "rows.csv", "--out", "out", *options]
    with pytest.raises(ValueError, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.slow
def test_a_classifier_is_compressed_to_targets(tmp_path, monkeypatch):
    monkeypatch.undo()
    make_short(monkeypatch, tmp_path)
    out = tmp_path / "out"
    data, model = write_reviews(tmp_path / "data.jsonl"), tiny(tmp_path / "model", "classification")
    arguments = ["compress", model, "--data", data, "--out", out, "--minutes", 10, "--max-tokens", 16, "--max-loss", 1]
    CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    found = json.loads((out / "choose.json").read_text())
    assert found["targets"]["loss"] == 1.0
    assert read_recipe(out / "recipe.yaml").stage_names[-1].endswith("convert")
    assert len(Encoder(out).classify(["a good film"])) == 1
    with pytest.raises(TargetsNotMetError, match="Nearest is"):
        CliRunner().invoke(app, [*map(str, arguments), "--target-speedup", "100000"], catch_exceptions=False)
