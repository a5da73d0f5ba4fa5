"""Order of batches: a pure function of seed and epoch, so that a run can resume."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import torch

T = TypeVar("T")


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """Permutation of the numbers below `count` for an epoch."""
    order = list(range(count))
    random.Random(f"{seed} {epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
    return order


def stream(batches: Sequence[T] | Iterable[T], seed: int, first: int = 0) -> Iterator[T]:
    """Endless stream of batches, starting at number `first`.

    A sequence is shuffled in every epoch. Other sized iterables, such as a `DataLoader`, keep their order; torch is
    seeded before each epoch, so that their shuffling is reproducible when a run resumes.
    """
    count = len(batches)  # type: ignore[arg-type]
    epoch, skipped = divmod(first, count)
    while True:
        if isinstance(batches, Sequence):
            for number in shuffled(count, seed, epoch)[skipped:]:
                yield batches[number]
        else:
            yield from _loader_epoch(batches, seed + epoch, skipped)
        epoch, skipped = epoch + 1, 0


def _loader_epoch(loader: Iterable[T], seed: int, skipped: int) -> Iterator[T]:
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    batches = iter(loader)
    start = list(islice(batches, 1))  # a DataLoader draws the seed of its order with its first batch
    torch.set_rng_state(state)
    yield from islice(chain(start, batches), skipped, None)
