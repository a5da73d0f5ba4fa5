"""Run whole models in the core: no torch, no Python between layers. Needs numpy, and tokenizers for texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsekit.engine.batch import Completion
from sparsekit.engine.encoder import Encoder
from sparsekit.engine.generator import Generator, Stream
from sparsekit.engine.labels import Classification
from sparsekit.engine.sampling import Sampling
from sparsekit.engine.spans import Span

if TYPE_CHECKING:
    from sparsekit.engine.compiling import compile_model

__all__ = ["Classification", "Completion", "Encoder", "Generator", "Sampling", "Span", "Stream", "compile_model"]


def __getattr__(name: str) -> Any:
    """Import what compiles on first use: a process that runs a compiled file has no need of it."""
    if name != "compile_model":
        raise AttributeError(f"module 'sparsekit.engine' has no attribute {name!r}")
    from sparsekit.engine.compiling import compile_model

    return compile_model


def __dir__() -> list[str]:
    return sorted(__all__)
