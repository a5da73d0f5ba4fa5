"""Plots of runs: content, location, and runs without matplotlib."""

import json
import sys

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from tiny_runs import recipe_of, tiny, write_reviews

from sparsekit.cli import app
from sparsekit.recipes import compress
from sparsekit.training import curves

_PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is drawn."""
    drawn = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            drawn.append(self)

    monkeypatch.setattr(curves, "Figure", Kept)
    return drawn


def write_log(path, count=100):
    lines = []
    for step in range(1, count + 1):
        lines.append({"step": step, "loss": 1 / step, "learning_rate": 1e-3 * (count - step), "sparsity": step / 200})
        if step % 50 == 0:
            lines.append({"step": step, "score": step / 100, "sparsity": step / 200})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_log_is_drawn_as_it_is(tmp_path, figures):
    write_log(tmp_path / "run.jsonl")
    curves.draw_curves(tmp_path / "run.jsonl", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(_PNG)
    panels = {axes.get_ylabel(): axes.lines for axes in figures[0].axes}
    assert list(panels) == ["loss", "learning rate", "sparsity", "score"]
    assert list(panels["loss"][0].get_ydata()) == [1 / step for step in range(1, 101)]
    assert panels["loss"][1].get_ydata()[50] == pytest.approx((1 / 50 + 1 / 51) / 2)
    assert list(panels["learning rate"][0].get_xdata()) == list(range(1, 101))
    assert list(panels["score"][0].get_xdata()) == [50, 100]
    assert list(panels["score"][0].get_ydata()) == [0.5, 1.0]


@pytest.mark.parametrize("text", ["", "step\n", "[1]\n", '{"loss": 1.0}\n'])
def test_what_is_no_log_is_refused(tmp_path, text):
    (tmp_path / "run.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"run.jsonl is no log of train\(\)"):
        curves.draw_curves(tmp_path / "run.jsonl", tmp_path / "run.png")
    assert not (tmp_path / "run.png").exists()


def test_a_run_draws_each_stage_that_trained_and_can_be_drawn_again(tmp_path, figures):
    reviews, classifier = write_reviews(tmp_path / "reviews.jsonl"), tiny(tmp_path / "model", "classification")
    training = {"epochs": 1, "evaluate_every": 2, "gradual": {"sparsity": 0.5, "frequency": 1}}
    out = tmp_path / "out"
    report = compress(classifier, recipe_of("classification", {"finetune": training}, "evaluate"), reviews, out)
    assert [row.get("plot") for row in report["stages"]] == ["1-finetune.png", None]
    assert (out / "1-finetune.png").read_bytes().startswith(_PNG)
    assert [axes.get_ylabel() for axes in figures[0].axes] == ["loss", "learning rate", "sparsity", "score"]
    (out / "1-finetune.png").unlink()
    told = CliRunner().invoke(app, ["plot", str(out)])
    assert told.exit_code == 0, told.output
    assert (out / "1-finetune.png").exists()
    log = out / "work" / "1-finetune.jsonl"
    assert CliRunner().invoke(app, ["plot", str(log)]).exit_code == 0
    assert log.with_suffix(".png").exists()
    with pytest.raises(FileNotFoundError, match="has no logs in work"):
        CliRunner().invoke(app, ["plot", str(tmp_path)], catch_exceptions=False)


def test_a_run_without_matplotlib_goes_on_without_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sparsekit.training.curves", None)  # as where it cannot be imported
    reviews, classifier = write_reviews(tmp_path / "reviews.jsonl"), tiny(tmp_path / "model", "classification")
    recipe = recipe_of("classification", {"finetune": {"epochs": 1}})
    with pytest.warns(UserWarning, match="1-finetune is not drawn.*pip install matplotlib, then sparsekit plot"):
        report = compress(classifier, recipe, reviews, tmp_path / "out")
    assert "plot" not in report["stages"][0]
    assert (tmp_path / "out" / "model.safetensors").exists()
