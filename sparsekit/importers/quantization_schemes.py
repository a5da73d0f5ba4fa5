"""How compressed-tensors says in `config.json` that weights are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Formats of quantized weights that are read: packed into int32, or int8 as it is.
FORMATS = ("pack-quantized", "int-quantized")
_BITS = (4, 8)


@dataclass(frozen=True)
class Scheme:
    """How the weights of some layers are quantized: symmetric, to integers."""

    bits: int
    group_size: int | None  # input features with one scale; None for one scale for each row, or for all rows


def read_schemes(section: dict[str, Any]) -> tuple[Scheme, ...]:
    """The schemes in a configuration's `quantization_config`; none if weights are not quantized.

    Raises:
        ValueError: weights are quantized otherwise than symmetrically to integers of 4 or 8 bits, or so are other
            tensors than weights and inputs.
    """
    for key in ("kv_cache_scheme", "transform_config"):
        if section.get(key):
            raise ValueError(f"{key} must be empty, got {section[key]!r:.80}")
    groups = section.get("config_groups") or {}
    if not isinstance(groups, dict):
        raise ValueError(f"config_groups must be an object, got {groups!r:.80}")
    return tuple(dict.fromkeys(_scheme(name, group, section) for name, group in groups.items()))


def _scheme(name: str, group: Any, section: dict[str, Any]) -> Scheme:
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        raise ValueError(f"config_groups[{name!r:.80}] must say how weights are quantized, got {group!r:.80}")
    form = group.get("format") or section.get("format")
    if form not in FORMATS:
        raise ValueError(
            f"format must be one of {', '.join(FORMATS)}, got {form!r:.80}; save the model in one of them, or "
            "dequantize it with the tool that made it first"
        )
    _check_inputs(name, group)
    weights = group["weights"]
    for key, expected in (("type", "int"), ("symmetric", True)):
        if weights.get(key, expected) != expected:
            raise ValueError(f"weights of {name!r:.80} must have {key} {expected!r}, got {weights[key]!r:.80}")
    bits, size = weights.get("num_bits"), weights.get("group_size")
    if type(bits) is not int or bits not in _BITS:
        raise ValueError(f"weights of {name!r:.80} must have 4 or 8 num_bits, got {bits!r:.80}")
    if size is not None and (type(size) is not int or size < -1 or size == 0):
        raise ValueError(f"group_size of {name!r:.80} must be a number of input features, got {size!r:.80}")
    if weights.get("strategy") not in (None, "tensor", "channel", "group"):
        raise ValueError(f"strategy of {name!r:.80} must be tensor, channel or group, got {weights['strategy']!r:.80}")
    return Scheme(bits, None if size == -1 else size)


def _check_inputs(name: str, group: dict[str, Any]) -> None:
    """Inputs may be quantized token by token when the model runs, as kernels here do; outputs may not."""
    inputs = group.get("input_activations")
    if inputs is not None and not (
        isinstance(inputs, dict) and inputs.get("type", "int") == "int" and inputs.get("dynamic") is True
    ):
        raise ValueError(f"input_activations of {name!r:.80} must be dynamic integers or none, got {inputs!r:.80}")
    if group.get("output_activations") is not None:
        raise ValueError(f"output_activations of {name!r:.80} must not be quantized")
