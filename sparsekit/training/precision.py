"""Mixed precision: the data type of the forward pass; weights and optimizer stay float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

#: Precisions by name.
PRECISIONS = ("float32", "bfloat16")


def autocast(module: nn.Module, precision: str) -> AbstractContextManager[Any]:
    """Autocast context for a module's forward pass.

    Args:
        module: the module, whose first parameter determines the device.
        precision: one of `PRECISIONS`.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(next(module.parameters()).device.type, dtype=torch.bfloat16)
