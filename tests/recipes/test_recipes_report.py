"""Reports of a run: intervals, a line per stage, a table of 80 columns, and interrupted commands."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("datasets")
pytest.importorskip("transformers")

from scipy import stats
from tiny_runs import recipe_of, tiny, write_reviews

from sparsekit import cli
from sparsekit.bench.layers import benchmark as layers
from sparsekit.checkpoint import folder_conversion
from sparsekit.checkpoint.card import write_section
from sparsekit.recipes import compress
from sparsekit.recipes.report.confidence_intervals import intervals, wilson
from sparsekit.recipes.report.text import as_text, comparison_table, duration, model_after, stage_line
from sparsekit.recipes.tasks import TASKS


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (9, 10), (10, 10), (912, 1000)])
def test_proportions_have_wilsons_interval(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits / count, count) == pytest.approx([expected.low, expected.high], abs=1e-6)


def test_other_scores_have_an_interval_of_resampled_texts():
    numbers = np.random.default_rng(1)
    losses = np.column_stack([numbers.normal(30.0, 5.0, 400), np.full(400, 10.0)])
    found = intervals(TASKS["language"], losses)["perplexity"]
    error = 1.96 * losses[:, 0].std() / 10 / 20  # of the mean loss of a token
    mean = losses[:, 0].mean() / 10
    assert np.log(found) == pytest.approx([mean - error, mean + error], abs=0.2 * error)
    likeness = numbers.normal(size=(300, 1)) + numbers.normal(size=(300, 2))
    low, high = intervals(TASKS["embedding"], likeness)["spearman"]
    assert low < stats.spearmanr(likeness[:, 0], likeness[:, 1]).statistic < high
    assert intervals(TASKS["embedding"], np.array([[1], [2], [20]]))["recall@10"] == wilson(2 / 3, 3)


def test_the_mean_f1_is_that_of_its_definition():
    metrics = pytest.importorskip("sklearn.metrics")
    answers = np.random.default_rng(0).integers(4, size=(50, 2))
    answers[answers == 2] = 3  # a class that nobody guesses
    scores = TASKS["classification"].scores_of(answers)
    assert scores["f1"] == pytest.approx(metrics.f1_score(answers[:, 1], answers[:, 0], average="macro"))
    assert scores["accuracy"] == metrics.accuracy_score(answers[:, 1], answers[:, 0])


@pytest.mark.parametrize(
    ("converted", "embeddings", "name"),
    [(4, "float32", "after int8"), (4, "int8", "after int8"), (0, "int8", "after int8 embeddings"),
     (0, "float32", "after convert, all layers dense")],
)  # fmt: skip
def test_a_conversion_is_named_by_what_it_changed(converted, embeddings, name):
    row = {"stage": "2-convert", "dtype": "int8", "embeddings": embeddings, "converted": converted}
    assert model_after([{"stage": "1-distill"}, row, {"stage": "3-evaluate"}]) == name


def test_stages_are_told_in_80_columns():
    row = {
        "stage": "3-evaluate",
        "accuracy": 0.9124,
        "f1": 0.9,
        "intervals": {"accuracy": [0.8991, 0.924]},
        "seconds": 4.2,
    }
    assert stage_line(row) == "3-evaluate (4 s): accuracy 0.9124 (0.8991 to 0.924), f1 0.9"
    row = {
        "stage": "2-prune",
        "layers": 24,
        "sparsity": 0.8,
        "empty_rows": 0,
        "too_sparse_layers": ["a", "b"],
        "seconds": 200,
    }
    assert stage_line(row, 100) == (
        "2-prune (3 min): layers 24, sparsity 0.8, empty rows 0, too sparse layers 2;\n    about 100 s left"
    )
    assert duration(8000) == "2 h"
    row |= {f"figure_{number}": number for number in range(20)}
    assert max(map(len, stage_line(row).splitlines())) <= 80


def test_the_table_fits_80_columns_and_goes_into_the_card_once(tmp_path):
    figures = {"one_text_ms": 123.4, "texts_per_second": 12345.6, "folder_mb": 26912.3, "memory_mb": 0.01234}
    rows = [
        {"name": "dense", "score": 0.91234, "interval": [0.88888, 0.93333], **figures},
        {"name": "after removing neurons", "score": 0.9},
        {"name": "after int8", "score": 0.9, "interval": [0.87, 0.92], **figures},
    ]
    table = comparison_table({"score": "accuracy", "rows": rows})
    lines = as_text(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["dense", "0.912", "(0.889-0.933)", "123", "12,346", "26,912", "0.0123"]
    for _ in range(2):
        write_section(tmp_path, "BertModel", table, "Measured | here.")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n---\n\n# BertModel\n")
    assert text.count("| after int8 | 0.9 (0.87-0.92) | 123 | 12,346 | 26,912 | 0.0123 |") == 1


def test_a_model_that_was_not_made_smaller_stands_alone(tmp_path):
    reviews, classifier = write_reviews(tmp_path / "reviews.jsonl"), tiny(tmp_path / "model", "classification")
    report = compress(classifier, recipe_of("classification", {"finetune": {"epochs": 1}}), reviews, tmp_path / "out")
    assert [row["name"] for row in report["comparison"]["rows"]] == ["after fine-tuning"]
    assert "after fine-tuning" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report


def stopped(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("line", "module", "name", "words"),
    [
        ("convert model --out out", folder_conversion, "open_folder", "stopped; out is as it was"),
        (
            "bench layers --json rows.json --shape 8x8",
            layers,
            "run",
            "what was measured is in rows.json, the same command",
        ),
        ("evaluate model --data reviews.jsonl", TASKS["classification"], "predictions", "stopped"),
    ],
)
def test_verbs_that_are_stopped_say_so(tmp_path, monkeypatch, capsys, line, module, name, words):
    write_reviews(tmp_path / "reviews.jsonl")
    tiny(tmp_path / "model", "classification")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, name, stopped)
    monkeypatch.setattr(sys, "argv", ["sparsekit", *line.split()])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 130
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
