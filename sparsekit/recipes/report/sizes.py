"""Size of a model on disk and in memory."""

from __future__ import annotations

from pathlib import Path

from torch import nn


def memory_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights and buffers, each counted once."""
    tensors = (*model.parameters(), *model.buffers())
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def disk_bytes(folder: Path) -> int:
    """Bytes of a folder's weight files; other files are equal for both models or unrelated."""
    for kind in ("model*.safetensors", "pytorch_model*.bin"):
        files = list(folder.glob(kind))
        if files:
            return sum(file.stat().st_size for file in files)
    return 0
