"""Read the configuration of an encoder; refuse what the engine does not compute, before weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sparsekit.engine.config_values import ACTIVATION_NAMES, activation_named, epsilon, flag, whole
from sparsekit.engine.encoder_families import FAMILIES, Family, Head
from sparsekit.engine.encoder_rotary import RotaryConfig, read_rotary
from sparsekit.engine.model_type import check_fixed, family_of
from sparsekit.engine.refusals import refusal
from sparsekit.engine.relative_config import RelativeConfig, read_relative

#: Key of config.json -> the only value supported, if the key is present.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


@dataclass(frozen=True)
class EncoderConfig:
    """Configuration of an encoder, in the engine's terms."""

    family: Family
    layers: int
    features: int  # of a hidden state
    head_dim: int
    first_position: int  # index of the first token
    activation: str  # a name of `runtime.ACTIVATIONS`
    norm_eps: float
    absent: frozenset[str]  # optional modules of the family that the model lacks
    without_bias: frozenset[str]  # modules without a bias
    rotary: RotaryConfig | None
    relative: RelativeConfig | None
    head: Head | None

    @property
    def attention_scale(self) -> float:
        """Scale of attention scores."""
        terms = 1 if self.relative is None else 1 + len(self.relative.projections)
        return float((self.head_dim * terms) ** -0.5)

    def has(self, kind: str, layer: int | None) -> bool:
        """Whether the model has a module, inside a layer or outside the layers (None)."""
        return kind not in self.absent and not (layer == 0 and kind in self.family.absent_in_first_layer)


def read_config(config: Mapping[str, Any]) -> EncoderConfig:
    """Read a configuration of transformers.

    Args:
        config: what config.json holds.

    Raises:
        ValueError: the engine does not run such a model, or a value is impossible.
    """
    family = _family_of(config)
    options = _Options(family, config)
    heads, features = options.whole("heads", 1), options.whole("features", 1)
    if features % heads:
        raise ValueError(f"config.json must have a hidden size that its heads divide, got {features} and {heads}")
    layers, head_dim = options.whole("layers", 0), features // heads
    for key in ("head_dim", "attention_head_size"):
        if config.get(key) not in (None, head_dim):
            raise refusal(f"heads of another size than hidden size and heads give, {key}={config[key]!r:.80}")
    if family.rotary and head_dim % 2:
        raise ValueError(f"heads must have an even number of features to be rotated, got {head_dim}")
    relative = read_relative(config) if family.relative else None
    return EncoderConfig(
        family,
        layers=layers,
        features=features,
        head_dim=head_dim,
        first_position=options.whole("padding", 0) + 1 if options.has("padding") else family.first_position,
        activation=options.activation(),
        norm_eps=options.norm_eps(),
        absent=_absent(family, config, _is_projected(options)) | (relative.absent() if relative else frozenset()),
        without_bias=frozenset(kind for kind, key in family.biases.items() if not flag(config, key)),
        rotary=read_rotary(config, layers) if family.rotary else None,
        relative=relative,
        head=_head_of(family, config),
    )


def _absent(family: Family, config: Mapping[str, Any], projected: bool) -> frozenset[str]:
    """Optional modules around the embeddings that the model lacks."""
    absent = {kind for kind, (key, default) in family.optional.items() if not _has(config, key, default)}
    if not projected:
        absent |= {"embedding_projection", "projection_norm"}
    elif "projection_norm" in family.modules:
        absent.add("embedding_norm")
    return frozenset(absent)


def _has(config: Mapping[str, Any], key: str, default: bool | int) -> bool:
    """Whether a key is true or a positive number."""
    return flag(config, key, default) if isinstance(default, bool) else whole(config, key, default, 0) > 0


def _is_projected(options: _Options) -> bool:
    """Whether embeddings are projected, since they are not as wide as hidden states."""
    return options.has("embedding_features") and options.whole("embedding_features", 1) != options.whole("features", 1)


def _family_of(config: Mapping[str, Any]) -> Family:
    family = family_of(config, FAMILIES)
    check_fixed(config, {**_FIXED, **family.fixed})
    return family


def _head_of(family: Family, config: Mapping[str, Any]) -> Head | None:
    """Head of the class that wrote the weights, if the engine computes it."""
    classes = config.get("architectures") or ()
    if not isinstance(classes, (list, tuple)):
        raise ValueError(f"architectures of config.json must be a list of names, got {classes!r:.80}")
    heads = (head for end, head in family.heads.items() if any(str(name).endswith(end) for name in classes))
    head = next(heads, None)
    return None if head is None else _configured(head, config)


def _configured(head: Head, config: Mapping[str, Any]) -> Head:
    """A head with the options in the configuration, if present."""
    words = {"activation": {**ACTIVATION_NAMES, "tanh": "tanh"}, "pooling": {"cls": "cls", "mean": "mean"}}
    found: dict[str, Any] = {}
    for option, key in head.keys.items():
        name = config.get(key, getattr(head, option))
        if not isinstance(name, str) or name not in words[option]:
            raise refusal(f"{key}={name!r:.80}, only {', '.join(words[option])}")
        found[option] = words[option][name]
    return replace(head, **found)


class _Options:
    """Reads a family's options from a configuration."""

    def __init__(self, family: Family, config: Mapping[str, Any]) -> None:
        self._keys = family.keys
        found = {option: config.get(key) for option, key in family.keys.items()}
        self._values = {**family.defaults, **{option: value for option, value in found.items() if value is not None}}

    def has(self, option: str) -> bool:
        return option in self._values

    def whole(self, option: str, least: int) -> int:
        value = self._values.get(option)
        if type(value) is not int or not least <= value < 2**31 - 1:
            raise ValueError(
                f"{self._keys[option]} of config.json must be a number from {least} to 2^31 - 2, got {value!r:.80}"
            )
        return value

    def norm_eps(self) -> float:
        return epsilon(self._values["norm_eps"], self._keys.get("norm_eps", "norm_eps"))

    def activation(self) -> str:
        return activation_named(self._values["activation"], self._keys["activation"])
