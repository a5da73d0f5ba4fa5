"""Non-persistent buffers, such as positions, which transformers computes from the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sparsekit.checkpoint.module_state import computed_buffers
from sparsekit.io.file_names import CONFIG


def _is_empty(module: nn.Module, key: str) -> bool:
    buffer = module._buffers[key]
    return buffer is not None and buffer.is_meta


def check_room(tensors: Iterable[torch.Tensor | None], most_bytes: int) -> None:
    """Raise ValueError if tensors that are not stored in files need more than `most_bytes`."""
    needed = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if needed > most_bytes:
        raise ValueError(f"{CONFIG} asks for tensors of {needed} bytes, expected at most {most_bytes}")


def fill_buffers(model: nn.Module, blank: Any, most_bytes: int) -> None:
    """Compute the non-persistent buffers, such as positions, of a model on meta.

    transformers computes them when it initializes weights, in the module that owns them or one above it. These modules
    are initialized in a copy that still has its original layers; initialization does nothing to weights on meta.

    Args:
        model: the model, after `check_names`, so that its tensors bound the work of initialization.
        blank: a copy of the model as transformers built it; modified.
        most_bytes: memory limit for the buffers.

    Raises:
        ValueError: the buffers need more memory.
    """
    wanted = {name: (module, key) for name, module, key in computed_buffers(model) if _is_empty(module, key)}
    check_room([module._buffers[key] for module, key in wanted.values()], most_bytes)
    for module in blank.modules():
        module._is_hf_initialized = True
    for name in wanted:
        *path, key = name.split(".")
        owner = blank.get_submodule(".".join(path))
        owner._buffers[key] = torch.zeros_like(owner._buffers[key], device="cpu")
        for length in range(len(path) + 1):
            blank.get_submodule(".".join(path[:length]))._is_hf_initialized = False
    with torch.random.fork_rng(devices=[]):
        blank.initialize_weights()
    for name, (module, key) in wanted.items():
        module._buffers[key] = blank.get_buffer(name)
