"""Fuse operators of a converted model: layers that share an input, norms with their residual, activation functions."""

from sparsekit.fusion.fusing import fuse, unfuse

__all__ = ["fuse", "unfuse"]
