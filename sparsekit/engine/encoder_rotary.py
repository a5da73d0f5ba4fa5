"""Read an encoder's rotary position embeddings and sliding windows from its configuration (ModernBERT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsekit.engine.config_values import positions, whole
from sparsekit.engine.layer_types import GLOBAL, LOCAL, read_layer_types
from sparsekit.engine.refusals import refusal

#: Older key for the base frequency -> its default in transformers.
_BASES = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary position embeddings and windows of all layers."""

    positions: int
    base: float  # base frequency of layers with full attention
    local_base: float  # of layers with a window
    windows: tuple[int, ...]  # window on either side, in tokens, of each layer; 0 for all tokens


def read_rotary(config: Mapping[str, Any], layers: int) -> RotaryConfig:
    """Read both forms of transformers: `layer_types` and `rope_parameters`, or the older keys.

    Raises:
        ValueError: the engine does not run such a model, or a value is impossible.
    """
    types = _layer_types(config, layers)
    window = whole(config, "local_attention", 128, 2) // 2 if LOCAL in types else 0
    if config.get("sliding_window") not in (None, window):
        raise refusal(f"sliding_window={config['sliding_window']!r:.80} beside local_attention")
    return RotaryConfig(
        positions(config, 8192),
        _base(config, GLOBAL),
        _base(config, LOCAL),
        tuple(window * (kind == LOCAL) for kind in types),
    )


def _layer_types(config: Mapping[str, Any], layers: int) -> Sequence[str]:
    types = read_layer_types(config, layers)
    if types is not None:
        return types
    every = whole(config, "global_attn_every_n_layers", 3, 1)
    return [LOCAL if layer % every else GLOBAL for layer in range(layers)]


def _base(config: Mapping[str, Any], kind: str) -> float:
    """Base frequency of a type of layers."""
    everything = config.get("rope_parameters") or {}
    if config.get("rope_scaling") is not None:
        raise refusal(f"rope_scaling={config['rope_scaling']!r:.80}")
    if not isinstance(everything, dict) or not {GLOBAL, LOCAL}.issuperset(everything):
        raise refusal(f"rope_parameters={everything!r:.80}, only those of {GLOBAL} and {LOCAL}")
    parameters = everything.get(kind) or {}
    if not isinstance(parameters, dict):
        raise ValueError(f"rope_parameters of config.json must hold objects, got {parameters!r:.80}")
    for key, value in {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}.items():
        if parameters.get(key, value) != value:
            raise refusal(f"{key}={parameters[key]!r:.80} of rope_parameters, only {value!r}")
    old, default = _BASES[kind]
    base = parameters.get("rope_theta", config.get(old, default))
    if type(base) not in (int, float) or not 1 <= base < 1e12:
        raise ValueError(f"rope_theta of config.json must be a number from 1 to 10^12, got {base!r:.80}")
    return float(base)
