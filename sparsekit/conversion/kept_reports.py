"""The report of a model's last conversion, kept beside the model: copies, pickles and state dicts go without it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn

from sparsekit.conversion.report import ConversionReport

_kept: WeakKeyDictionary[nn.Module, ConversionReport] = WeakKeyDictionary()


def keep_report(model: nn.Module, report: ConversionReport) -> None:
    """Keep what `conversion_report` gives, as long as the model lives."""
    _kept[model] = report


def forget_report(model: nn.Module) -> None:
    """Forget it, if there is one."""
    _kept.pop(model, None)


def conversion_report(model: nn.Module) -> ConversionReport:
    """What `convert` did to this model: `print` shows it as a table.

    Args:
        model: a model that `convert` returned. Its copies, and what `load` gives, have no report.

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
