"""Read the options of disentangled attention from a configuration (DeBERTa-v2 and v3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparsekit.engine.config_values import flag, positions, whole
from sparsekit.engine.refusals import refusal

#: Term of the scores -> the table that it uses, and the linear layer that computes the table if `share_att_key` is set.
_TABLES = {"c2p": ("position_key", "key"), "p2c": ("position_query", "query")}


@dataclass(frozen=True)
class RelativeConfig:
    """Options of disentangled attention."""

    tokens: int  # of the longest sequence
    span: int  # half the rows of the relative embeddings
    buckets: int  # of distances; 0: no bucketing
    farthest: int  # largest distance that buckets distinguish
    normed: bool  # whether a layer norm follows the relative embeddings
    projections: Mapping[str, str]  # table of a layer -> module that computes it from the relative embeddings

    def absent(self) -> frozenset[str]:
        """Optional modules that the model lacks."""
        kinds = {"relative_norm", *(table for table, _ in _TABLES.values())}
        return frozenset(kinds - set(self.projections.values()) - ({"relative_norm"} if self.normed else set()))


def read_relative(config: Mapping[str, Any]) -> RelativeConfig:
    """Read the options of transformers.

    Raises:
        ValueError: the engine does not run such a model, or a value is impossible.
    """
    if not flag(config, "relative_attention"):
        raise refusal("deberta-v2 with relative_attention=False, only True")
    tokens = positions(config, 512)
    farthest = _positive(config, "max_relative_positions") or tokens
    buckets = _positive(config, "position_buckets")
    if buckets > 0 and farthest - 1 <= max(1, buckets // 2):
        raise ValueError(f"position_buckets of config.json must be less than twice max_relative_positions - 1, "
                         f"got {buckets} and {farthest}")  # fmt: skip
    shares = flag(config, "share_att_key")
    return RelativeConfig(
        tokens,
        span=buckets or farthest,
        buckets=buckets,
        farthest=farthest,
        normed=_is_normed(config.get("norm_rel_ebd", "none")),
        projections={_TABLES[term][0]: _TABLES[term][shares] for term in _terms(config.get("pos_att_type"))},
    )


def _positive(config: Mapping[str, Any], key: str) -> int:
    """An integer option; 0 if it is not positive."""
    return max(0, whole(config, key, -1, -(2**24)))


def _is_normed(value: object) -> bool:
    if value not in ("none", "layer_norm"):
        raise refusal(f"norm_rel_ebd={value!r:.80}, only 'none', 'layer_norm'")
    return value == "layer_norm"


def _terms(value: object) -> list[str]:
    """Names of the position-dependent terms of the scores."""
    terms = [term.strip() for term in value.lower().split("|")] if isinstance(value, str) else value
    if not isinstance(terms, list) or not terms or not all(isinstance(term, str) and term in _TABLES for term in terms):
        raise refusal(f"pos_att_type={value!r:.80}, only some of {', '.join(_TABLES)}")
    return sorted(set(terms))
