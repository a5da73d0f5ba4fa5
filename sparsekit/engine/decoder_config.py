"""Read the configuration of a decoder; refuse what the engine does not compute, before weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsekit.engine.config_values import activation_named, epsilon, flag, number, whole
from sparsekit.engine.decoder_families import DECODER_FAMILIES, DecoderFamily
from sparsekit.engine.decoder_positions import DecoderPositions, read_positions
from sparsekit.engine.model_type import check_fixed, family_of
from sparsekit.engine.refusals import refusal


@dataclass(frozen=True)
class DecoderConfig:
    """Configuration of a decoder, in the engine's terms."""

    family: DecoderFamily
    layers: int
    features: int  # of a hidden state
    heads: int  # of queries, before any was removed
    key_heads: int  # of keys and values (grouped-query attention)
    head_dim: int
    vocabulary: int
    activation: str  # a name of `runtime.ACTIVATIONS`
    norm_eps: float
    attention_scale: float  # of scores
    attention_cap: float  # scores become `cap * tanh(score / cap)`; 0 for none
    logit_cap: float  # the same of logits
    embedding_scale: float  # of word embeddings where they are looked up
    parallel: bool  # whether attention and feed-forward network read the same input (parallel residual)
    tied: bool  # whether the head shares the word embeddings
    with_bias: frozenset[str]  # linear layers with a bias
    positions: DecoderPositions

    @property
    def has_layer_norm(self) -> bool:
        """Whether norms are layer norms, with mean and bias, rather than RMSNorm."""
        return self.family.norm == "layer"


def read_decoder_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Read a configuration of transformers.

    Args:
        config: what config.json holds.

    Raises:
        ValueError: the engine does not run such a model, or a value is impossible.
    """
    family = family_of(config, DECODER_FAMILIES)
    check_fixed(config, family.fixed)
    _check_class(family, config)
    options = _Options(family, config)
    heads, features, layers = options.whole("heads", 1), options.whole("features", 1), options.whole("layers", 0)
    head_dim = _head_dim(options, config, features, heads)
    key_heads = options.whole("key_heads", 1) if options.has("key_heads") else heads
    if heads % key_heads:
        raise ValueError(f"config.json must have heads that its key-value heads divide, got {heads} and {key_heads}")
    return DecoderConfig(
        family,
        layers=layers,
        features=features,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        vocabulary=options.whole("vocabulary", 1),
        activation=activation_named(options.value("activation"), family.keys["activation"]),
        norm_eps=epsilon(options.value("norm_eps"), family.keys["norm_eps"]),
        attention_scale=_attention_scale(options, head_dim),
        attention_cap=options.cap("attention_cap"),
        logit_cap=options.cap("logit_cap"),
        embedding_scale=float(features**0.5) if family.scaled_embeddings else 1.0,
        parallel=options.flag("parallel", True) if "parallel" in family.keys else False,
        tied=options.flag("tied", family.defaults["tied"]),
        with_bias=frozenset(kind for kind, told in family.biases.items() if _has_bias(config, told)),
        positions=read_positions(family, config, layers, head_dim),
    )


def _check_class(family: DecoderFamily, config: Mapping[str, Any]) -> None:
    """Refuse classes whose head is not that of a causal language model."""
    classes = config.get("architectures") or ()
    if not isinstance(classes, (list, tuple)):
        raise ValueError(f"architectures of config.json must be a list of names, got {classes!r:.80}")
    others = [name for name in classes if name not in family.classes]
    if others:
        raise refusal(f"{others[0]!s:.80}, of {config['model_type']} only {', '.join(family.classes)}")


def _head_dim(options: _Options, config: Mapping[str, Any], features: int, heads: int) -> int:
    if options.has("head_dim"):
        return options.whole("head_dim", 1)
    if features % heads:
        raise ValueError(f"config.json must have a hidden size that its heads divide, got {features} and {heads}")
    if config.get("head_dim") not in (None, features // heads):
        raise refusal(f"{config['model_type']} with head_dim={config['head_dim']!r:.80}")
    return features // heads


def _attention_scale(options: _Options, head_dim: int) -> float:
    if options.has("scale_features"):
        return float(options.whole("scale_features", 1) ** -0.5)
    return float(head_dim**-0.5) if options.flag("scaled_attention", True) else 1.0


def _has_bias(config: Mapping[str, Any], told: bool | tuple[str, bool]) -> bool:
    return told if isinstance(told, bool) else flag(config, *told)


class _Options:
    """Reads a family's options from a configuration; null means the default."""

    def __init__(self, family: DecoderFamily, config: Mapping[str, Any]) -> None:
        self._keys = family.keys
        self._config = config
        self._defaults = family.defaults

    def value(self, option: str) -> Any:
        """Value in the configuration, or transformers' default."""
        default = self._defaults.get(option)
        key = self._keys.get(option)
        found = default if key is None else self._config.get(key, default)
        return default if found is None and option not in _NULLABLE else found

    def has(self, option: str) -> bool:
        """Whether the option is set."""
        return self.value(option) is not None

    def whole(self, option: str, least: int) -> int:
        """An integer option."""
        return whole({self._keys[option]: self.value(option)}, self._keys[option], 0, least)

    def flag(self, option: str, default: bool) -> bool:
        """A boolean option; the default in families without it."""
        key = self._keys.get(option)
        return default if key is None else flag(self._config, key, default)

    def cap(self, option: str) -> float:
        """Soft cap of scores or logits; 0 for none."""
        value = self.value(option)
        return 0.0 if value is None else number(value, self._keys[option], 1e-3, 1e6)


#: Options for which null is a value of its own: off, or derived from other options.
_NULLABLE = ("key_heads", "head_dim", "attention_cap", "logit_cap")
