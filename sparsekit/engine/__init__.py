"""Run whole models in the core: no torch, no Python between layers. Needs numpy, and tokenizers for texts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsekit.engine.encoder import Encoder
from sparsekit.engine.labels import Classification
from sparsekit.engine.spans import Span

if TYPE_CHECKING:
    from sparsekit.engine.compiling import compile_model
    from sparsekit.engine.continuous_batching import Completion
    from sparsekit.engine.generator import Generator, Stream
    from sparsekit.engine.sampling import Sampling

__all__ = ["Classification", "Completion", "Encoder", "Generator", "Sampling", "Span", "Stream", "compile_model"]

#: Names imported on first use -> their modules: a process that runs a compiled encoder does not need them.
_LATER = {
    "Completion": "continuous_batching",
    "Generator": "generator",
    "Sampling": "sampling",
    "Stream": "generator",
    "compile_model": "compiling",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'sparsekit.engine' has no attribute {name!r}")
    return getattr(import_module(f"sparsekit.engine.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
