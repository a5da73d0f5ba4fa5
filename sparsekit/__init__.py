"""Make PyTorch language models sparse and run them faster on CPUs.

Names that need torch load it when they are first used, as do the packages inside; `import sparsekit` does not.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsekit.checkpoint.transformers.registration import register_when_imported
from sparsekit.extras import how_to_install

if TYPE_CHECKING:
    from sparsekit.checkpoint import VerificationReport, load, save, verify
    from sparsekit.conversion import ConversionReport, conversion_report, convert, densify, load_state_dict
    from sparsekit.formats import CSR
    from sparsekit.fusion import fuse, unfuse
    from sparsekit.nn import JoinedLinear, SparseLinear, use_attention
    from sparsekit.pruning import finalize, prune, prune_sparsegpt
    from sparsekit.recipes import compress, evaluate
    from sparsekit.runtime import KernelUnavailableError, keep_freed_memory

__version__: str

#: Public name -> package that defines it.
_HOMES = {
    "CSR": "formats",
    "ConversionReport": "conversion",
    "JoinedLinear": "nn",
    "KernelUnavailableError": "runtime",
    "SparseLinear": "nn",
    "VerificationReport": "checkpoint",
    "compress": "recipes",
    "conversion_report": "conversion",
    "convert": "conversion",
    "densify": "conversion",
    "evaluate": "recipes",
    "finalize": "pruning",
    "fuse": "fusion",
    "keep_freed_memory": "runtime",
    "load": "checkpoint",
    "load_state_dict": "conversion",
    "prune": "pruning",
    "prune_sparsegpt": "pruning",
    "save": "checkpoint",
    "unfuse": "fusion",
    "use_attention": "nn",
    "verify": "checkpoint",
}

__all__ = [
    "CSR",
    "ConversionReport",
    "JoinedLinear",
    "KernelUnavailableError",
    "SparseLinear",
    "VerificationReport",
    "__version__",
    "compress",
    "conversion_report",
    "convert",
    "densify",
    "evaluate",
    "finalize",
    "fuse",
    "keep_freed_memory",
    "load",
    "load_state_dict",
    "prune",
    "prune_sparsegpt",
    "save",
    "unfuse",
    "use_attention",
    "verify",
]


def _packages() -> set[str]:
    """Names of the packages inside, each imported when it is first used."""
    return {file.parent.name for folder in __path__ for file in Path(folder).glob("*/__init__.py")}


def _version() -> str:
    from importlib.metadata import version

    return version("sparsekit-cpu")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES and name not in _packages():
        raise AttributeError(f"module 'sparsekit' has no attribute {name!r}")
    package = _HOMES.get(name, name)
    extra = "compress" if package == "recipes" else "torch"
    try:
        home = importlib.import_module(f"sparsekit.{package}")
        return getattr(home, name) if name in _HOMES else home
    except ModuleNotFoundError as error:
        if extra == "torch" and error.name != "torch":
            raise
        raise ModuleNotFoundError(f"sparsekit.{name} needs {error.name}: {how_to_install(extra)}") from error


def __dir__() -> list[str]:
    return sorted({*__all__, *_packages()})


register_when_imported()
