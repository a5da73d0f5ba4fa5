"""Run whole encoders in the core: no torch, no Python between layers. Needs numpy, and tokenizers for texts."""

from sparsekit.engine.compiling import compile_model
from sparsekit.engine.encoder import Encoder

__all__ = ["Encoder", "compile_model"]
