"""Hash tensors, so that what was computed with other ones is known for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn


def digest(parts: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors, 64 digits.

    >>> digest([("a", torch.ones(2))]) == digest([("b", torch.ones(2))])
    False
    """
    found = hashlib.sha256()
    for name, tensor in parts:
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def model_digest(model: nn.Module) -> str:
    """The digest of a model's weights and buffers."""
    return digest(sorted(model.state_dict().items()))


def batches_digest(batches: Sequence[Mapping[str, torch.Tensor]]) -> str:
    """The digest of batches, in their order."""
    return digest((f"{number}.{name}", batch[name]) for number, batch in enumerate(batches) for name in sorted(batch))
