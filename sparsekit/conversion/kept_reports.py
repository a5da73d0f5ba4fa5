"""Keep the report of a model's last conversion outside the model, so that copies, pickles and state dicts omit it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from sparsekit.conversion.report import ConversionReport

_kept: WeakKeyDictionary[nn.Module, ConversionReport] = WeakKeyDictionary()


def keep_report(model: nn.Module, report: ConversionReport) -> None:
    """Keep the report for `conversion_report`, as long as the model exists."""
    _kept[model] = report


def forget_report(model: nn.Module) -> None:
    """Drop the model's report, if there is one."""
    _kept.pop(model, None)


def conversion_report(model: nn.Module) -> ConversionReport:
    """Report on what `convert` did to this model; `print` shows it as a table.

    Args:
        model: a model that `convert` returned. Copies and loaded models have no report.

    Raises:
        ValueError: the model was not converted, or is dense again.

    >>> model = nn.Sequential(nn.Linear(8, 4))
    >>> conversion_report(model)
    Traceback (most recent call last):
        ...
    ValueError: this Sequential has no conversion report: give the model that sparsekit.convert returned, not a copy
    """
    if model not in _kept:
        raise ValueError(
            f"this {type(model).__name__} has no conversion report: give the model that sparsekit.convert returned, "
            "not a copy"
        )
    return _kept[model]
