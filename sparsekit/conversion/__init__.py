"""Swap the linear layers of a pruned model for sparse ones where that is faster, and report what was done."""

from sparsekit.conversion.converting import convert, densify, load_state_dict
from sparsekit.conversion.kept_reports import conversion_report
from sparsekit.conversion.report import ConversionReport

__all__ = ["ConversionReport", "conversion_report", "convert", "densify", "load_state_dict"]
