"""Import sparse weights from other tools. Files are untrusted and checked first.

`read_weights` detects the kind of a file or folder; the others read one kind each. All need torch, and some another
library; each is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsekit.importers.compressed_tensors import import_compressed_tensors, rewritten_config
    from sparsekit.importers.compressed_tensors_folder import convert_compressed_tensors
    from sparsekit.importers.lora import merge_lora
    from sparsekit.importers.onnx_weights import import_onnx
    from sparsekit.importers.reading import read_weights
    from sparsekit.importers.scipy_npz import import_scipy
    from sparsekit.importers.torch_prune import without_masks

#: Public name -> module that defines it.
_HOMES = {
    "convert_compressed_tensors": "sparsekit.importers.compressed_tensors_folder",
    "import_compressed_tensors": "sparsekit.importers.compressed_tensors",
    "import_onnx": "sparsekit.importers.onnx_weights",
    "import_scipy": "sparsekit.importers.scipy_npz",
    "merge_lora": "sparsekit.importers.lora",
    "read_weights": "sparsekit.importers.reading",
    "rewritten_config": "sparsekit.importers.compressed_tensors",
    "without_masks": "sparsekit.importers.torch_prune",
}

__all__ = [
    "convert_compressed_tensors",
    "import_compressed_tensors",
    "import_onnx",
    "import_scipy",
    "merge_lora",
    "read_weights",
    "rewritten_config",
    "without_masks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsekit.importers' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
