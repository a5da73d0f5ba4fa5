"""Batches that are watched: calibration goes through them for minutes, once or several times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from sparsekit.compress.batches import Batch


class Watched(Sequence[Batch]):
    """Batches that show a bar of their own each time something goes through all of them.

    Args:
        batches: the batches.
        title: stands before the bar.
    """

    def __init__(self, batches: Sequence[Batch], title: str) -> None:
        self.batches = batches
        self.title = title

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: Any) -> Any:
        return self.batches[number]

    def __iter__(self) -> Iterator[Batch]:
        return iter(tqdm(self.batches, desc=self.title, unit="batch"))
