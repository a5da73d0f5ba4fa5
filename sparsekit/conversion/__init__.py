"""Swap the linear layers of a pruned model for sparse ones where that is faster, and report what was done."""

from sparsekit.conversion.converting import convert
from sparsekit.conversion.densifying import densify
from sparsekit.conversion.kept_reports import conversion_report
from sparsekit.conversion.report import ConversionReport
from sparsekit.conversion.state_dicts import load_state_dict

__all__ = ["ConversionReport", "conversion_report", "convert", "densify", "load_state_dict"]
