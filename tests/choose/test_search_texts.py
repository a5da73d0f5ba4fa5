"""How the user's table is split for the search."""

import json

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("transformers")

from tiny_runs import write_reviews

from sparsekit.choose.texts import split_texts


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_parts_are_the_whole_table(tmp_path):
    data = write_reviews(tmp_path / "reviews.jsonl")
    texts = split_texts(data, "classification", {"max_tokens": 16}, 0, tmp_path)
    train, selection = rows_of(texts.train), rows_of(texts.selection)
    key = lambda row: (row["text"], row["label"])  # noqa: E731
    assert sorted(map(key, train + selection)) == sorted(map(key, rows_of(data)))
    assert len(selection) == round(0.15 * len(rows_of(data)))
    assert texts.columns == {"label": "label", "max_tokens": 16}


def test_the_split_is_that_of_its_seed(tmp_path):
    data = write_reviews(tmp_path / "reviews.jsonl")
    first, again, other = (
        split_texts(data, "classification", {}, seed, tmp_path).selection.read_text() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_table_without_labels_is_refused(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n' * 40)
    with pytest.raises(ValueError, match="label"):
        split_texts(path, "classification", {}, 0, tmp_path)


def test_texts_of_an_encoder_are_split_without_pairs(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(40)))
    texts = split_texts(path, "embedding", {}, 0, tmp_path)
    assert sorted(map(str, rows_of(texts.train) + rows_of(texts.selection))) == sorted(map(str, rows_of(path)))
    assert len(rows_of(texts.selection)) == 6
    assert texts.test is None


def test_pairs_that_are_asked_for_must_be_there(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n' * 40)
    with pytest.raises(ValueError, match="must have a column 'second'"):
        split_texts(path, "embedding", {"pair": "second"}, 0, tmp_path)
