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
    """Collects tensors and writes a file whenever the next one would exceed the size limit.

    Args:
        folder: folder to write to.
        max_bytes: largest size of the tensors in a file; a tensor larger than that gets its own file.
        format: framework of the arrays, in the files' metadata: "pt" for PyTorch; transformers 4 refuses unknown ones.
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
        """Add tensors returned by `storable`; those of one call go to the same file."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._waiting and self._waiting_bytes + size > self._max_bytes:
            self._flush()
        self.entries.update((name, entry_of(tensor)) for name, tensor in tensors.items())
        self._waiting.update(tensors)
        self._waiting_bytes += size
        self.nbytes += size

    def close(self) -> None:
        """Write the remaining tensors, and rename the files to include the number of files."""
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
