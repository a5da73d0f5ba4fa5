"""Tokenize texts into batches: padded texts of similar length, or windows of one long text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from sparsekit.recipes.data.tables import Rows

#: Keyword arguments of a model's forward, int64 [batch, tokens], and "labels".
Batch: TypeAlias = dict[str, torch.Tensor]


def padded(tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int, *, by_length: bool = True) -> list[Batch]:
    """Batches of texts, sorted by length to keep padding low.

    Args:
        tokenizer: a transformers tokenizer.
        rows: texts, optionally with second texts and integer labels.
        batch_size: texts per batch.
        max_tokens: longer texts are truncated.
        by_length: False keeps the order of the rows.
    """
    texts = (rows.texts, rows.pairs) if rows.pairs else (rows.texts,)
    encoded = tokenizer(*texts, truncation=True, max_length=max_tokens)
    names = [name for name in tokenizer.model_input_names if name in encoded]
    order = sorted(range(len(rows)), key=lambda i: len(encoded["input_ids"][i]) if by_length else i)
    batches = []
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        inputs = tokenizer.pad({name: [encoded[name][i] for i in chosen] for name in names}, return_tensors="pt")
        batch = {name: inputs[name] for name in names}
        if rows.labels:
            batch["labels"] = torch.tensor([rows.labels[i] for i in chosen])
        batches.append(batch)
    return batches


def windows(tokenizer: Any, rows: Rows, batch_size: int, tokens: int) -> list[Batch]:
    """Batches of windows of `tokens` tokens over the concatenated texts; the incomplete last window is dropped.

    Raises:
        ValueError: the texts do not fill one window.
    """
    end = tokenizer.eos_token_id
    stream: list[int] = []
    for ids in tokenizer(rows.texts)["input_ids"]:
        stream += ids if end is None else [*ids, end]
    count = len(stream) // tokens
    if not count:
        raise ValueError(f"the texts have {len(stream)} tokens, fewer than one window of {tokens}")
    ids = torch.tensor(stream[: count * tokens]).view(count, tokens)
    return [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(batch_size)]


def sample(batches: Sequence[Batch], texts: int, seed: int, *, labels: bool = False) -> list[Batch]:
    """Randomly chosen batches with about `texts` texts in total, with or without their labels."""
    size = len(batches[0]["input_ids"])
    chosen = random.Random(seed).sample(list(batches), min(len(batches), max(1, texts // size)))  # noqa: S311
    return chosen if labels else [inputs_of(batch) for batch in chosen]


def has_label(batch: Batch) -> bool:
    """Whether at least one text has a label; True for batches without a label column."""
    return "labels" not in batch or bool((batch["labels"] != -100).any())


def one_by_one(batches: Sequence[Batch]) -> list[Batch]:
    """Split batches into batches of one text."""
    return [
        {name: value[i : i + 1] for name, value in batch.items()}
        for batch in batches
        for i in range(len(batch["input_ids"]))
    ]


def inputs_of(batch: Batch) -> Batch:
    """A batch without its labels."""
    return {name: value for name, value in batch.items() if name != "labels"}
