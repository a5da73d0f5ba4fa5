"""Find a model's family, and check options that have a single supported value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sparsekit.engine.refusals import refusal

_Family = TypeVar("_Family")


def family_of(config: Mapping[str, Any], families: Mapping[str, _Family]) -> _Family:
    """The family of a configuration's `model_type`.

    Raises:
        ValueError: the engine does not run such models, or the weights are quantized by another library.
    """
    model_type = config.get("model_type")
    family = families.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise refusal(f"models of model_type {model_type!r:.80}, only {', '.join(families)}")
    quantization = config.get("quantization_config") or {"quant_method": "sparsekit"}
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "sparsekit":
        raise refusal(f"weights quantized with another library, quantization_config={quantization!r:.80}")
    return family


def check_fixed(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise ValueError if a key is present with an unsupported value."""
    for key, value in fixed.items():
        if config.get(key) not in (value, None):
            raise refusal(f"{config['model_type']} with {key}={config[key]!r:.80}, only {value!r}")
