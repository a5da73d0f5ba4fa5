"""Heads that several attentions must lose together, because they share a table of position biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sparsekit.pruning.structured.attention import Attention, find_attentions
from sparsekit.pruning.structured.units import choose_units


def tied_heads(model: nn.Module, attentions: Sequence[Attention]) -> list[list[Attention]]:
    """Attentions grouped by the table of position biases that they share, one column per head.

    Raises:
        ValueError: only some of the attentions that share a table are given.
    """
    by_table: dict[tuple[str, ...], list[Attention]] = {}
    for attention in attentions:
        by_table.setdefault(attention.tables or (attention.name,), []).append(attention)
    chosen = {attention.name for attention in attentions}
    for attention in find_attentions(model):
        if attention.tables in by_table and attention.name not in chosen:
            raise ValueError(
                f"{attention.name} reads the position biases of {attention.tables[0]} together with "
                f"{by_table[attention.tables][0].name}, one column a head: they lose the same heads; take all of them"
            )
    return list(by_table.values())


def choose_heads(
    scores: Mapping[str, torch.Tensor],
    tied: Sequence[Sequence[Attention]],
    fraction: float | None,
    scope: str,
    least: int,
) -> dict[str, torch.Tensor]:
    """Indices of the units to keep in every attention; tied attentions keep the same ones."""
    summed = {own[0].name: sum((scores[one.name] for one in own[1:]), scores[own[0].name]) for own in tied}
    kept = choose_units(summed, fraction, None, scope=scope, minimum=least)
    return {one.name: kept[own[0].name] for own in tied for one in own}


def check_same_heads(tied: Sequence[Sequence[Attention]], kept: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError if tied attentions would keep different heads."""
    for own in tied:
        for one in own[1:]:
            if not torch.equal(kept[one.name], kept[own[0].name]):
                raise ValueError(
                    f"{own[0].name} and {one.name} read the same position biases, one column a head; name the same "
                    "heads for both"
                )
