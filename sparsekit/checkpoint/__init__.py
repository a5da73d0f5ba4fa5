"""Model folders: sparse models on disk, laid out like Hugging Face folders. `docs/format.md` specifies the format.

Everything but `open_layers` needs torch; each name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsekit.checkpoint.folder_conversion import convert_folder
    from sparsekit.checkpoint.loading import load
    from sparsekit.checkpoint.saving import save
    from sparsekit.checkpoint.verification import VerificationReport, verify
    from sparsekit.folder.layers import open_layers

#: Public name -> module that defines it.
_HOMES = {
    "VerificationReport": "sparsekit.checkpoint.verification",
    "convert_folder": "sparsekit.checkpoint.folder_conversion",
    "load": "sparsekit.checkpoint.loading",
    "open_layers": "sparsekit.folder.layers",
    "save": "sparsekit.checkpoint.saving",
    "verify": "sparsekit.checkpoint.verification",
}

__all__ = ["VerificationReport", "convert_folder", "load", "open_layers", "save", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsekit.checkpoint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
