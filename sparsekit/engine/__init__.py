"""Run whole encoders in the core: no torch, no Python between layers. Needs numpy, and tokenizers for texts."""

from sparsekit.engine.compiling import compile_model
from sparsekit.engine.encoder import Encoder
from sparsekit.engine.labels import Classification
from sparsekit.engine.spans import Span

__all__ = ["Classification", "Encoder", "Span", "compile_model"]
