"""Swap the linear layers of a pruned model for sparse ones where they gain, and say what was done."""

from sparsekit.conversion.converting import convert, densify, load_state_dict
from sparsekit.conversion.report import ConversionReport

__all__ = ["ConversionReport", "convert", "densify", "load_state_dict"]
