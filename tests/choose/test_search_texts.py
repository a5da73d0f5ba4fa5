"""How the user's table is split for the search."""

import json

import pytest

pytest.importorskip("pydantic")
transformers = pytest.importorskip("transformers")

from tiny_runs import tiny, write_reviews  # noqa: E402

from sparsekit.choose.texts import split_texts, usual_tokens  # noqa: E402


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_parts_are_the_whole_table(tmp_path):
    data = write_reviews(tmp_path / "reviews.jsonl")
    texts = split_texts(data, "classification", {"max_tokens": 16}, 0, tmp_path / "work")
    train, selection = rows_of(texts.train), rows_of(texts.selection)
    key = lambda row: (row["text"], row["label"])  # noqa: E731
    assert sorted(map(key, train + selection)) == sorted(map(key, rows_of(data)))
    assert len(selection) == round(0.15 * len(rows_of(data)))
    assert texts.columns == {"label": "label", "max_tokens": 16}


def test_the_split_is_that_of_its_seed(tmp_path):
    data = write_reviews(tmp_path / "reviews.jsonl")
    first, again, other = (
        split_texts(data, "classification", {}, seed, tmp_path / name).selection.read_text()
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == again != other


def test_a_table_without_labels_is_refused(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n' * 40)
    with pytest.raises(ValueError, match="label"):
        split_texts(path, "classification", {}, 0, tmp_path / "work")


def test_usual_tokens_are_the_median(tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny(tmp_path / "model", "classification"))
    counts = [len(ids) for ids in tokenizer(["good", "good film", "good film " * 30])["input_ids"]]
    assert usual_tokens(tokenizer, ["good", "good film", "good film " * 30], 512) == sorted(counts)[1]
    assert usual_tokens(tokenizer, ["good film " * 30], 8) == 8
