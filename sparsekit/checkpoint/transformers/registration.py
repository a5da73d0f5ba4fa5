"""Register with transformers as soon as it is imported, without importing it.

`import sparsekit` must stay light, and transformers does not discover quantizers of other packages. So a finder on
`sys.meta_path` waits for the transformers module that opens models, and registers ours after that has been executed.
Folders open whichever of the two libraries is imported first.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

#: Module that everything in transformers that opens a model imports.
_AWAITED = "transformers.modeling_utils"


def _register() -> None:
    """Register, or warn on failure: an unexpected version must not make transformers unusable."""
    try:
        importlib.import_module("sparsekit.checkpoint.transformers.quantizer").register()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        warnings.warn(f"sparsekit cannot register with this version of transformers ({error}); open model folders with "
                      "sparsekit.load and save models with sparsekit.save", stacklevel=2)  # fmt: skip


class _ThenRegister:
    """Runs a module's own loader, then `_register`."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Code that runs while the module is executed, and tools that read its source, expect its own loader.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()


class _WaitForTransformers:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AWAITED:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ThenRegister(spec.loader)  # type: ignore[assignment]  # its base takes 10 ms to import
                return spec
        return None


def register_when_imported() -> None:
    """Register now if transformers is already imported, else as soon as it is."""
    if _AWAITED in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WaitForTransformers())
