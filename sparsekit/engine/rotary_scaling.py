"""RoPE scaling: the kinds of `rope_parameters` that extend a model's context.

Tables equal those of transformers. Where transformers would switch to other angles for longer texts, the table ends:
"dynamic" at `max_position_embeddings`, "longrope" at the original length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.engine.config_values import flag, number, whole
from sparsekit.engine.positions import rotary_frequencies, rotary_table
from sparsekit.engine.refusals import refusal

#: Largest number of rows; longer contexts are truncated to it.
MOST_POSITIONS = 2**17
_KEYS = {
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
    "low_freq_factor",
    "high_freq_factor",
}


@dataclass(frozen=True)
class Rotary:
    """Rotary position embeddings that layers share."""

    base: float
    dims: int  # rotated features per head, the first ones
    kind: str  # a key of `_SCALINGS`
    options: Mapping[str, Any]  # of `kind`, from config.json
    max_positions: int  # of the configuration
    original_positions: int  # context length of the original training

    @property
    def positions(self) -> int:
        """Rows of the table."""
        longest = self.original_positions if self.kind == "longrope" else MOST_POSITIONS
        return min(self.max_positions, longest, MOST_POSITIONS)

    def scaled(self) -> tuple[NDArray[np.float32], float]:
        """Frequencies, float32, shape [dims / 2], and the scale of cosines and sines.

        Raises:
            ValueError: an option is missing or impossible.
        """
        return _SCALINGS[self.kind](self)

    def table(self) -> NDArray[np.float32]:
        """Cosines and sines, float32, shape [positions, dims]; see `rotary_table`."""
        frequencies, factor = self.scaled()
        return rotary_table(frequencies, self.positions, factor)

    def number(self, key: str) -> float:
        """A positive number.

        Raises:
            ValueError: it is missing or not a positive number.
        """
        return number(self.options.get(key), f"{key} of rope_parameters", 1e-6, 1e9)

    def number_or(self, key: str, default: float) -> float:
        """An optional number, with a default for missing, null and 0."""
        return self.number(key) if self.options.get(key) else default

    def extension(self) -> float:
        """Ratio of the extended to the original context length."""
        return self.number_or("factor", self.max_positions / self.original_positions)


def rotary_of(
    options: Mapping[str, Any], base: object, dims: int, max_positions: int, original_positions: object = None
) -> Rotary:
    """Read `rope_parameters`.

    Args:
        options: `rope_parameters`, or the part of it for a type of layers.
        base: base frequency, if `options` has none.
        dims: rotated features per head.
        max_positions: `max_position_embeddings`.
        original_positions: original context length, if the configuration has it outside `rope_parameters`.

    Raises:
        ValueError: the engine does not support the kind, or an option is missing or invalid.
    """
    unknown = sorted(set(options) - _KEYS)
    if unknown:
        raise refusal(f"rope_parameters with {unknown[0]}={options[unknown[0]]!r:.80}")
    kind = options.get("rope_type", options.get("type", "default"))
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise refusal(f"rope_type={kind!r:.80}, only {', '.join(_SCALINGS)}")
    if not flag(options, "truncate", True):
        raise refusal("truncate=False of rope_parameters, only True")
    key = "original_max_position_embeddings"
    original = options.get(key, max_positions) if original_positions is None else original_positions
    found = Rotary(
        number(options.get("rope_theta", base), "rope_theta", 1, 1e12),
        dims,
        kind,
        options,
        max_positions,
        whole({key: original}, key, 1, 2 if kind == "longrope" else 1),
    )
    found.scaled()
    return found


def _default(rotary: Rotary) -> tuple[NDArray[np.float32], float]:
    return rotary_frequencies(rotary.base, rotary.dims), 1.0


def _linear(rotary: Rotary) -> tuple[NDArray[np.float32], float]:
    return rotary_frequencies(rotary.base, rotary.dims) / np.float32(rotary.number("factor")), 1.0


def _llama3(rotary: Rotary) -> tuple[NDArray[np.float32], float]:
    """Llama 3: divide low frequencies, keep high ones, interpolate between them."""
    frequencies = rotary_frequencies(rotary.base, rotary.dims)
    factor, low, high = (np.float32(rotary.number(f"{name}factor")) for name in ("", "low_freq_", "high_freq_"))
    if low >= high:
        raise ValueError(f"high_freq_factor of rope_parameters must be above low_freq_factor, got {high} and {low}")
    turns = np.float32(rotary.original_positions) * frequencies / np.float32(2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - smooth) * frequencies / factor + smooth * frequencies).astype(np.float32), 1.0


def _yarn(rotary: Rotary) -> tuple[NDArray[np.float32], float]:
    """YaRN (Peng et al.): interpolate by the number of rotations within the original context length."""
    factor, dims = rotary.extension(), rotary.dims
    if rotary.base == 1:
        raise ValueError("rope_theta of config.json must be above 1 for yarn, got 1")

    def dimension(turns: float) -> float:
        return dims * math.log(rotary.original_positions / (turns * 2 * math.pi)) / (2 * math.log(rotary.base))

    first = max(math.floor(dimension(rotary.number_or("beta_fast", 32))), 0)
    last = min(math.ceil(dimension(rotary.number_or("beta_slow", 1))), dims - 1)
    width = last - first or 0.001
    frequencies = rotary_frequencies(rotary.base, dims)
    ramp = np.clip((np.arange(len(frequencies), dtype=np.float32) - np.float32(first)) / np.float32(width), 0, 1)
    return frequencies / np.float32(factor) * ramp + frequencies * (1 - ramp), _yarn_factor(rotary, factor)


def _yarn_factor(rotary: Rotary, factor: float) -> float:
    def grown(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    numerator, denominator = rotary.number_or("mscale", 0), rotary.number_or("mscale_all_dim", 0)
    default = grown(numerator) / grown(denominator) if numerator and denominator else grown(1)
    return default if rotary.options.get("attention_factor") is None else rotary.number("attention_factor")


def _longrope(rotary: Rotary) -> tuple[NDArray[np.float32], float]:
    """LongRoPE (Ding et al.): a factor for each frequency."""
    frequencies = rotary_frequencies(rotary.base, rotary.dims)
    factors = rotary.options.get("short_factor")
    if not isinstance(factors, list) or len(factors) != len(frequencies):
        raise ValueError(f"short_factor of rope_parameters must be a list of {len(frequencies)} numbers, "
                         f"got {factors!r:.80}")  # fmt: skip
    short = [number(factor, "short_factor of rope_parameters", 1e-6, 1e9) for factor in factors]
    extension = rotary.extension()
    grown = math.sqrt(1 + math.log(extension) / math.log(rotary.original_positions)) if extension > 1 else 1.0
    factor = grown if rotary.options.get("attention_factor") is None else rotary.number("attention_factor")
    return np.divide(frequencies, short, dtype=np.float32), factor


_SCALINGS: Mapping[str, Callable[[Rotary], tuple[NDArray[np.float32], float]]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _default,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
