"""Read a decoder's positions from its configuration: sliding windows and rotary position embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsekit.engine.config_values import flag, number, whole
from sparsekit.engine.decoder_families import DecoderFamily
from sparsekit.engine.layer_types import GLOBAL, LOCAL, read_layer_types
from sparsekit.engine.refusals import refusal
from sparsekit.engine.rotary_scaling import Rotary, rotary_of

#: Rotary table of a layer, by its code in a compiled model.
NO_ROTARY, MAIN_ROTARY, LOCAL_ROTARY = 0, 1, 2


@dataclass(frozen=True)
class DecoderPositions:
    """Positions of all layers."""

    rotary: Rotary | None  # of most layers
    local_rotary: Rotary | None  # of those that see a window, where they have their own
    rotary_kinds: tuple[int, ...]  # of each layer: `NO_ROTARY`, `MAIN_ROTARY` or `LOCAL_ROTARY`
    windows: tuple[int, ...]  # tokens that each layer sees, itself among them; 0 for all


def read_positions(family: DecoderFamily, config: Mapping[str, Any], layers: int, head_dim: int) -> DecoderPositions:
    """Read positions from a configuration of transformers.

    Args:
        family: the model's family.
        config: content of config.json.
        layers: number of layers.
        head_dim: features per head.

    Raises:
        ValueError: the engine does not run such a model, or a value is impossible.
    """
    types = _types(family, config, layers)
    windows = _windows(family, config, types)
    if not family.rotary:
        return DecoderPositions(None, None, (NO_ROTARY,) * layers, windows)
    reader = _RotaryReader(family, config, head_dim)
    if "local_rotary_base" in family.keys:
        kinds = tuple(LOCAL_ROTARY if kind == LOCAL else MAIN_ROTARY for kind in types)
        local = reader.of_type(LOCAL, "local_rotary_base") if LOCAL in types else None
        return DecoderPositions(reader.of_type(GLOBAL, "rotary_base"), local, kinds, windows)
    kinds = tuple(MAIN_ROTARY if rotated else NO_ROTARY for rotated in _rotated(family, config, layers))
    return DecoderPositions(reader.of_all(), None, kinds, windows)


def _rotated(family: DecoderFamily, config: Mapping[str, Any], layers: int) -> Sequence[bool]:
    """Whether each layer has rotary position embeddings (NoPE layers of SmolLM3 have none)."""
    if family.windows != "smollm3":
        return [True] * layers
    flags = config.get("no_rope_layers")
    if flags is None:
        every = whole(config, "no_rope_layer_interval", 4, 1)
        return [(layer + 1) % every != 0 for layer in range(layers)]
    if not isinstance(flags, list) or len(flags) != layers or not all(value in (0, 1) for value in flags):
        raise ValueError(f"no_rope_layers of config.json must be a list of {layers} flags, got {flags!r:.80}")
    return [bool(value) for value in flags]


#: `windows` of a family -> rule for configurations without `layer_types`: whether a layer has a sliding window, given
#: the configuration, the layer's number and whether it is rotary.
_IS_LOCAL: Mapping[str, Callable[[Mapping[str, Any], int, bool], bool]] = {
    "all": lambda config, layer, rotated: True,
    "qwen": lambda config, layer, rotated: layer >= whole(config, "max_window_layers", 28, 0),
    "smollm3": lambda config, layer, rotated: not rotated,
    "gemma2": lambda config, layer, rotated: layer % 2 == 0,
    "gemma3": lambda config, layer, rotated: (layer + 1) % whole(config, "sliding_window_pattern", 6, 1) != 0,
}
#: Rules whose windows `use_sliding_window` turns on, and rules that always have some.
_SWITCHED, _ALWAYS = ("qwen", "smollm3"), ("gemma2", "gemma3")


def _types(family: DecoderFamily, config: Mapping[str, Any], layers: int) -> Sequence[str]:
    """Attention type of each layer."""
    types = read_layer_types(config, layers)
    if types is not None:
        return types
    if _window(family, config) is None and family.windows not in _ALWAYS:
        return [GLOBAL] * layers
    rotated = _rotated(family, config, layers)
    return [LOCAL if _IS_LOCAL[family.windows](config, layer, rotated[layer]) else GLOBAL for layer in range(layers)]


def _window(family: DecoderFamily, config: Mapping[str, Any]) -> int | None:
    """Window size in tokens; None for models without windows."""
    if family.windows == "none" or (family.windows in _SWITCHED and not flag(config, "use_sliding_window")):
        return None
    window = config.get("sliding_window", family.defaults["window"])
    return None if window is None else whole({"sliding_window": window}, "sliding_window", 1, 1)


def _windows(family: DecoderFamily, config: Mapping[str, Any], types: Sequence[str]) -> tuple[int, ...]:
    """Window size of each layer."""
    window = _window(family, config)
    if window is None and LOCAL in types:
        raise refusal(f"layers of type {LOCAL} without a sliding_window")
    return tuple((window or 0) * (kind == LOCAL) for kind in types)


class _RotaryReader:
    """Reads RoPE options in both forms of transformers: `rope_parameters`, or the older keys."""

    def __init__(self, family: DecoderFamily, config: Mapping[str, Any], head_dim: int) -> None:
        self._family = family
        self._config = config
        self._head_dim = head_dim
        self._positions = whole(config, family.keys["positions"], family.defaults["positions"], 1)

    def of_all(self) -> Rotary:
        """RoPE of a family whose layers share it."""
        options = dict(self._object("rope_scaling") or self._object("rope_parameters"))
        kind = options.get("rope_type", options.get("type"))
        if isinstance(kind, str) and kind in self._family.rotary_aliases:
            options["rope_type"] = self._family.rotary_aliases[kind]
        original = self._config.get("original_max_position_embeddings", self._family.defaults.get("original_positions"))
        return self._read(options, "rotary_base", original)

    def of_type(self, kind: str, base: str) -> Rotary:
        """RoPE of one type of layers.

        Args:
            kind: type of layers.
            base: the family's option for the base frequency.
        """
        everything = self._object("rope_parameters")
        if not {GLOBAL, LOCAL}.issuperset(everything):
            raise refusal(f"rope_parameters={everything!r:.80}, only those of {GLOBAL} and {LOCAL}")
        options = dict(_checked_object(everything.get(kind) or {"rope_type": "default"}, "rope_parameters"))
        return self._read({**options, **(self._object("rope_scaling") if kind == GLOBAL else {})}, base, None)

    def _read(self, options: Mapping[str, Any], base: str, original: object) -> Rotary:
        default = self._config.get(self._family.keys[base], self._family.defaults[base])
        return rotary_of(options, default, self._dims(options), self._positions, original)

    def _object(self, key: str) -> Mapping[str, Any]:
        return _checked_object(self._config.get(key) or {}, key)

    def _dims(self, options: Mapping[str, Any]) -> int:
        """Features of a head that are rotated."""
        key = self._family.keys.get("rotary_fraction", "partial_rotary_factor")
        default = self._config.get(key, self._family.defaults.get("rotary_fraction", 1.0))
        fraction = number(options.get("partial_rotary_factor", default), "partial_rotary_factor", 0, 1)
        if fraction != 1 and "rotary_fraction" not in self._family.keys:
            raise refusal(f"{self._config['model_type']} with partial_rotary_factor={fraction}, only 1")
        dims = int(self._head_dim * fraction)
        if not 0 < dims + dims % 2 <= self._head_dim:
            raise ValueError(
                f"heads must have an even number of features to be rotated, got {dims} of {self._head_dim}"
            )
        return dims


def _checked_object(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} of config.json must be an object, got {value!r:.80}")
    return value
