"""From texts to batches: padded texts of about the same length, or windows of one long text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from sparsekit.recipes.data.tables import Rows

#: Keyword arguments of a model's forward, int64 [batch, tokens], and "labels".
Batch: TypeAlias = dict[str, torch.Tensor]


def padded(tokenizer: Any, rows: Rows, batch_size: int, max_tokens: int, *, by_length: bool = True) -> list[Batch]:
    """Batches of texts, sorted by length so that little is padding.

    Args:
        tokenizer: a transformers tokenizer.
        rows: texts, pairs of texts where there are any, and labels (whole numbers) where there are any.
        batch_size: texts in a batch.
        max_tokens: longer texts are cut.
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
    """Batches of windows of so many tokens of all texts one after another; what is left at the end is dropped.

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
    """Batches that hold about so many texts, chosen at random, with their labels or without."""
    size = len(batches[0]["input_ids"])
    chosen = random.Random(seed).sample(list(batches), min(len(batches), max(1, texts // size)))  # noqa: S311
    return chosen if labels else [inputs_of(batch) for batch in chosen]


def has_label(batch: Batch) -> bool:
    """Whether at least one text has a label; so have all where none is asked for."""
    return "labels" not in batch or bool((batch["labels"] != -100).any())


def one_by_one(batches: Sequence[Batch]) -> list[Batch]:
    """The batches' texts as batches of one."""
    return [
        {name: value[i : i + 1] for name, value in batch.items()}
        for batch in batches
        for i in range(len(batch["input_ids"]))
    ]


def inputs_of(batch: Batch) -> Batch:
    """A batch without its labels."""
    return {name: value for name, value in batch.items() if name != "labels"}
