"""Register with transformers as soon as it is there, without importing it.

`import sparsekit` must stay light, and transformers asks no one whether they have something to register. So an entry of
`sys.meta_path`, where Python asks who can import a module, waits for the module of transformers that opens models; when
it has been executed, ours is registered. Whichever of the two libraries is imported first, folders open.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Imported by everything in transformers that opens a model.
_AWAITED = "transformers.modeling_utils"


def _register() -> None:
    """Register, or say that it cannot be done: an unexpected version must not make transformers unusable."""
    try:
        importlib.import_module("sparsekit.checkpoint.transformers.quantizer").register()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        warnings.warn(f"sparsekit cannot register with this version of transformers ({error}); open model folders with "
                      "sparsekit.load and save models with sparsekit.save", stacklevel=2)  # fmt: skip


class _ThenRegister(Loader):
    """A module's own loader, and `_register` after it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # What is written into a module while it is executed, and tools that ask for its source, want its own loader.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()


class _WaitForTransformers(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AWAITED:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = None if spec.loader is None else _ThenRegister(spec.loader)
                return spec
        return None


def register_when_imported() -> None:
    """Register now if transformers is imported, else when it is."""
    if _AWAITED in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WaitForTransformers())
