"""Read `layer_types` of a configuration: layers with full attention, and with a sliding window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsekit.engine.refusals import refusal

#: Types of layers: full attention, and a sliding window.
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read_layer_types(config: Mapping[str, Any], layers: int) -> Sequence[str] | None:
    """Type of each layer; None if the configuration has no `layer_types`.

    Raises:
        ValueError: it is not a list with one known type for each layer.
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
