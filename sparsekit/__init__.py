"""Make PyTorch language models sparse and run them faster on CPUs.

Names that need torch load it when they are first used; `import sparsekit` does not.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sparsekit.checkpoint.registration import register_when_imported
from sparsekit.extras import how_to_install

if TYPE_CHECKING:
    from sparsekit.attention import use_attention
    from sparsekit.checkpoint import VerificationReport, load, save, verify
    from sparsekit.conversion import convert, densify, load_state_dict
    from sparsekit.conversion_report import ConversionReport
    from sparsekit.formats import CSR
    from sparsekit.fusion import fuse, unfuse
    from sparsekit.joined import JoinedLinear
    from sparsekit.memory import keep_freed_memory
    from sparsekit.nn import SparseLinear
    from sparsekit.pruning import finalize, prune
    from sparsekit.runtime import KernelUnavailableError

__version__ = version("sparsekit-cpu")

#: Public name -> module that defines it.
_HOMES = {
    "CSR": "sparsekit.formats",
    "ConversionReport": "sparsekit.conversion_report",
    "JoinedLinear": "sparsekit.joined",
    "KernelUnavailableError": "sparsekit.runtime",
    "SparseLinear": "sparsekit.nn",
    "VerificationReport": "sparsekit.checkpoint",
    "convert": "sparsekit.conversion",
    "densify": "sparsekit.conversion",
    "finalize": "sparsekit.pruning",
    "fuse": "sparsekit.fusion",
    "keep_freed_memory": "sparsekit.memory",
    "load": "sparsekit.checkpoint",
    "load_state_dict": "sparsekit.conversion",
    "prune": "sparsekit.pruning",
    "save": "sparsekit.checkpoint",
    "unfuse": "sparsekit.fusion",
    "use_attention": "sparsekit.attention",
    "verify": "sparsekit.checkpoint",
}

__all__ = [
    "CSR",
    "ConversionReport",
    "JoinedLinear",
    "KernelUnavailableError",
    "SparseLinear",
    "VerificationReport",
    "__version__",
    "convert",
    "densify",
    "finalize",
    "fuse",
    "keep_freed_memory",
    "load",
    "load_state_dict",
    "prune",
    "save",
    "unfuse",
    "use_attention",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sparsekit' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(f"sparsekit.{name} needs torch: {how_to_install('torch')}") from error


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_imported()
