"""Parts of the demo that fit a short test; `make demo` runs all of it."""

import json

import pytest
from rich.console import Console

pytest.importorskip("datasets")
pytest.importorskip("transformers")

import tiny_runs  # noqa: F401 - times nothing

from sparsekit.bench.film_reviews import load_splits
from sparsekit.demo import report, run


def test_splits_share_no_sentence_and_are_repeatable():
    splits = load_splits()
    train, test = ({row["text"].lower() for row in part} for part in (splits.train, splits.test))
    assert not train & test
    assert len(test) == len(splits.test) == 1500
    assert len(train) == len(splits.train) == run._FULL[0]
    assert load_splits() == splits
    assert load_splits(1) != splits
    labels = [row["label"] for row in splits.train]
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.02)


def test_the_recipe_takes_sparsity_and_seed():
    recipe = run._recipe(0.7, 3, fast=False)
    assert recipe.seed == 3
    assert [stage.settings.sparsity for stage in recipe.stages if stage.name == "prune"] == [0.7]
    assert recipe.stages[-1].name == "convert"


def measured(engine, texts, ms):
    sparsity = None if engine == "torch" else 0.8
    return {
        "batch": texts,
        "tokens": 16,
        "threads": 1,
        "engine": engine,
        "sparsity": sparsity,
        "ms": ms,
        "noisy": False,
    }


def test_the_report_shows_speed_first_and_writes_table_plot_and_json(tmp_path):
    rows = [
        measured(name, texts, ms * texts)
        for texts in (1, 4)
        for name, ms in zip(report._ENGINES, (9, 3, 2), strict=True)
    ]
    console = Console(width=80, record=True)
    report.show_speed(rows, 0.8, 7030, console)
    told = console.export_text()
    assert "1 text of 16 tokens 9.0 (1.0x) 3.0 (3.0x) 2.0 (4.5x)" in " ".join(told.split())
    assert "1 thread," in told
    assert "left" in told
    figures = {"one_text_ms": 9.0, "texts_per_second": 100.0, "folder_mb": 90.0, "memory_mb": 90.0}
    scored = [{"name": name, "score": 0.8, "interval": [0.7, 0.9], **figures} for name in ("dense", "after int8")]
    comparison = {"score": "accuracy", "interval": "95%", "threads": 1, "tokens_of_a_text": 20, "texts_in_a_batch": 32}
    ran = {"comparison": comparison | {"rows": scored}, "environment": {"cpu": "a processor"}}
    result = {"speed": rows, "report": ran, "seconds": {"all": 100.0}}
    report.show_report(result, tmp_path / "out" / "model", tmp_path / "out", console)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "| after int8 | 0.8 (0.7-0.9) |" in (tmp_path / "out" / "table.md").read_text()
    assert max(map(len, console.export_text().splitlines())) <= 80


@pytest.mark.slow
def test_a_tiny_run_writes_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_FAST", (64, 32, 0.01))
    result = run.run_demo(tmp_path / "out", Console(width=80), sparsity=0.8, seed=0, fast=True)
    assert result["report"]["comparison"]["rows"][-1]["name"] == "after int8"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"result.json", "table.md", "plot.png", "model-80-seed-0-fast"} <= written
    assert not (tmp_path / "out" / "model-80-seed-0-fast" / "work").exists()
