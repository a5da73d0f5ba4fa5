"""The parts of the demo that a short test can hold; the whole runs as `make demo`."""

import copy
import json

import pytest
import torch
from rich.console import Console

from sparsekit import conversion_report, convert, finalize
from sparsekit.demo import report
from sparsekit.demo.data import load_splits, make_batches
from sparsekit.demo.main_job import run_demo
from sparsekit.demo.measure import accuracy
from sparsekit.demo.model import SentenceClassifier, load_minilm
from sparsekit.demo.settings import FAST, FULL
from sparsekit.demo.training import IGNORE, prune_student

TINY = FAST.replace(
    train_sentences=64, test_sentences=64, far_sentences=8, calibration_sentences=32, max_tokens=16, timing_seconds=0.1
)


def test_splits_share_no_sentence_and_are_repeatable():
    splits = load_splits(FULL)
    train, test = ({example.text.lower() for example in part} for part in (splits.train, splits.test))
    assert not train & test
    assert len(test) == len(splits.test) == 1500
    assert len(train) == len(splits.train) > 6900
    assert load_splits(FULL) == splits
    assert load_splits(FULL.replace(seed=1)) != splits
    assert load_splits(FULL.replace(train_sentences=10)).test == splits.test
    labels = [example.label for example in splits.train]
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.02)


def test_the_converted_student_gives_the_answers_of_its_dense_self():
    encoder, tokenizer = load_minilm()
    splits = load_splits(TINY)
    batches = make_batches(tokenizer, splits.train, TINY.batch_size, TINY.max_tokens)
    assert [len(batch.labels) for batch in batches] == [32, 32]
    assert all(batch.inputs["input_ids"].shape[1] <= TINY.max_tokens for batch in batches)
    torch.manual_seed(0)
    student = finalize(prune_student(SentenceClassifier(encoder).eval(), batches, TINY.replace(sparsity=0.8)))
    dense_self = copy.deepcopy(student)
    conversion = conversion_report(convert(student, ignore=IGNORE, min_sparsity=0.5))
    assert conversion.converted == len(conversion.layers) == 36
    assert conversion.bytes_after < 0.4 * conversion.bytes_before
    with torch.inference_mode():
        for batch in batches:
            own, other = student(**batch.inputs), dense_self(**batch.inputs)
            torch.testing.assert_close(own.logits, other.logits, rtol=1e-3, atol=1e-4)
    assert accuracy(student, batches, "test") == accuracy(dense_self, batches, "test")


@pytest.mark.slow
def test_a_tiny_run_writes_its_results(tmp_path):
    console = Console(width=160, record=True)
    result = run_demo(TINY, tmp_path / "out", console)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"{result['student']['accuracy']:.1%}" in table
    assert table.strip() == report.markdown(result)
    assert "sparsekit.convert(model)" in console.export_text()
    kinds = {(row["threads"], row["kind"]) for row in result["speed"]}
    assert (1, "one sentence") in kinds
    assert (1, "batch of 32") in kinds
