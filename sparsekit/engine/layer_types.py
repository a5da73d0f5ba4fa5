"""`layer_types` of a configuration: layers that see all tokens, and those that see a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsekit.engine.refusals import refusal

#: Types of layers: those that see all tokens, and those that see a window.
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read_layer_types(config: Mapping[str, Any], layers: int) -> Sequence[str] | None:
    """The type of each layer; None where the configuration does not say it.

    Raises:
        ValueError: it is no list of one type for each layer, or the engine does not know one.
    """
    types = config.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != layers:
        raise ValueError(f"layer_types of config.json must be a list of {layers} types, got {types!r:.80}")
    unknown = [kind for kind in types if kind not in (GLOBAL, LOCAL)]
    if unknown:
        raise refusal(f"layers of type {unknown[0]!r:.80}, only {GLOBAL}, {LOCAL}")
    return types
