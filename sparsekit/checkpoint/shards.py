"""Write tensors to one weight file, or to several of limited size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from sparsekit.checkpoint.tensors import entry_of
from sparsekit.folder.manifest import ArrayEntry
from sparsekit.io.file_names import INDEX, WEIGHTS


class ShardWriter:
    """Gathers tensors and writes a file whenever enough have come together.

    Args:
        folder: where the files go.
        max_bytes: most bytes of tensors in a file; one that is larger alone gets a file of its own.
        format: for whom the arrays are, in the files' metadata: "pt" for PyTorch; transformers 4 opens no other than
            it knows.
    """

    def __init__(self, folder: Path, max_bytes: int, format: str = "pt") -> None:
        self.entries: dict[str, ArrayEntry] = {}
        self.nbytes = 0
        self._folder = folder
        self._max_bytes = max_bytes
        self._format = format
        self._waiting: dict[str, torch.Tensor] = {}
        self._waiting_bytes = 0
        self._shards: list[list[str]] = []

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write these tensors, which `storable` returned, to the same file."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._waiting and self._waiting_bytes + size > self._max_bytes:
            self._flush()
        self.entries.update((name, entry_of(tensor)) for name, tensor in tensors.items())
        self._waiting.update(tensors)
        self._waiting_bytes += size
        self.nbytes += size

    def close(self) -> None:
        """Write what is left, and give the files their names, for which one must know how many there are."""
        if self._waiting or not self._shards:
            self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(0).rename(self._folder / WEIGHTS)
            return
        where = {}
        for number, names in enumerate(self._shards):
            shard = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._folder / shard)
            where.update(dict.fromkeys(names, shard))
        index = {"metadata": {"total_size": self.nbytes}, "weight_map": where}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}.safetensors"

    def _flush(self) -> None:
        save_file(self._waiting, self._part(len(self._shards)), metadata={"format": self._format})
        self._shards.append(list(self._waiting))
        self._waiting, self._waiting_bytes = {}, 0
