"""Refuse a model without zeros, or warn, before anything is packed, measured or changed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from sparsekit.conversion.report import LEAST_ZEROS


def check_zeros(
    sparsities: Iterable[float], dtype: str, min_sparsity: float | None, least: float, *, only_layers: bool
) -> None:
    """Refuse layers without zeros if none would be converted, and warn if smaller weights may still pay.

    Args:
        sparsities: sparsities of the layers, read up to the first with zeros.
        dtype: type of the stored weights.
        min_sparsity: as in `convert`; None if layers are measured.
        least: sparsity below which no layer is converted.
        only_layers: whether nothing else would be converted.

    Raises:
        ValueError: no layer has zeros, and nothing else would be converted.
    """
    found = False
    for sparsity in sparsities:
        if sparsity >= LEAST_ZEROS:
            return
        found = True
    if not found:
        return
    advice = "prune the model first (sparsekit.prune(model, 0.8), or sparsekit prune)"
    if least > LEAST_ZEROS:
        if not only_layers:
            return
        raise ValueError(
            f"no layer has zeros, but only layers with at least {least:.0%} zeros would be converted: {advice}; "
            "dtype='int8' may pay without zeros, and min_sparsity=0 converts in any case"
        )
    if min_sparsity is None:
        message = f"no layer has zeros: {dtype} weights are all that can make the model faster; {advice} for more"
        warnings.warn(message, stacklevel=5)
