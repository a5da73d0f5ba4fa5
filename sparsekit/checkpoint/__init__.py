"""Model folders: a sparse model on disk, in the shape of a Hugging Face folder. `docs/format.md` says what is in it.

`save` and `load` need torch, `open_layers` does not: each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsekit.checkpoint.layers import open_layers
    from sparsekit.checkpoint.loading import load
    from sparsekit.checkpoint.saving import save

#: Public name -> module that defines it.
_HOMES = {
    "load": "sparsekit.checkpoint.loading",
    "open_layers": "sparsekit.checkpoint.layers",
    "save": "sparsekit.checkpoint.saving",
}

__all__ = ["load", "open_layers", "save"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsekit.checkpoint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
