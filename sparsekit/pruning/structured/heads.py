"""`prune_heads`: remove heads of attentions, so that the dense layers around them shrink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.calibration.gradients import Loss
from sparsekit.pruning.methods import find_unit_score
from sparsekit.pruning.structured.attention import (
    Attention,
    check_attention,
    find_attentions,
    fit_attributes,
    head_counts,
    keep_parameters,
    units_of,
)
from sparsekit.pruning.structured.config_heads import write_head_counts
from sparsekit.pruning.structured.config_widths import record_shapes
from sparsekit.pruning.structured.narrowing import check_layers, keep_columns
from sparsekit.pruning.structured.removal import removing
from sparsekit.pruning.structured.tied_heads import check_same_heads, choose_heads, tied_heads
from sparsekit.pruning.structured.unit_scores import check_values
from sparsekit.pruning.structured.units import Units, check_amount, check_units, keep_units, select_by_layers


def _select(model: nn.Module, targets: Iterable[str] | None, ignore: Iterable[str]) -> list[Attention]:
    found = {attention.name: attention for attention in find_attentions(model)}
    if not found:
        raise ValueError(
            "found no attention with known layer names; heads can be removed if query, key and value are separate "
            "linear layers (BERT, Llama, OPT, T5, ...), or one layer as in GPT-2, GPT-NeoX, Falcon, Phi-3 and "
            "ModernBERT"
        )
    names = select_by_layers(model, {name: attention.layers for name, attention in found.items()}, targets, ignore)
    return [found[name] for name in names]


def _check(model: nn.Module, attentions: Sequence[Attention]) -> list[Units]:
    check_layers(model, [layer for attention in attentions for layer in attention.layers])
    for attention in attentions:
        check_attention(model, attention)
    units = [units_of(model, attention) for attention in attentions]
    check_units(model, units)
    return units


def _remove(
    model: nn.Module, units: Sequence[Units], attentions: Sequence[Attention], kept: Mapping[str, torch.Tensor]
) -> None:
    """Narrow all per-head parameters, and record the new shapes."""
    narrowed: set[str] = set()
    changed = []
    for one, attention in zip(units, attentions, strict=True):
        if len(kept[one.name]) == one.count:
            continue
        changed.append(attention)
        keep_units(model, one, kept[one.name])
        group = one.size // attention.head_size
        heads = (kept[one.name][:, None] * group + torch.arange(group)).flatten()
        keep_parameters(model, attention, heads)
        for table in set(attention.tables) - narrowed:
            narrowed.add(table)
            keep_columns(model.get_submodule(table), heads)
    for attention in changed:
        fit_attributes(model, attention)
    covered = write_head_counts(model, find_attentions(model))
    record_shapes(model, [layer for one in changed if one.name not in covered for layer in one.layers])


def _named(attentions: Sequence[Attention], heads: Mapping[Any, Iterable[int]]) -> list[tuple[Attention, list[int]]]:
    """The attentions that `heads` gives by name or by index in model order, with the heads to remove."""
    by_name = {attention.name: attention for attention in attentions}
    by_key: dict[Any, Attention] = {**dict(enumerate(attentions)), **by_name}
    unknown = [key for key in heads if key not in by_key]
    if unknown:
        raise ValueError(f"heads names the attentions {unknown}; the model has {', '.join(by_name)}, or 0, 1, ...")
    return [(by_key[key], sorted(set(numbers))) for key, numbers in heads.items()]


def _kept_units(name: str, removed: Sequence[int], heads: int, shared: int) -> torch.Tensor:
    """Indices of the key/value heads to keep when query heads are removed."""
    if any(not 0 <= head < heads for head in removed):
        raise ValueError(f"{name} has the heads 0 to {heads - 1}, got {list(removed)}")
    if shared == 1:
        shared = heads  # multi-query: the single key/value head is kept
    group = heads // shared
    gone = [unit for unit in range(shared) if set(range(unit * group, (unit + 1) * group)) <= set(removed)]
    if len(gone) * group < len(removed):
        raise ValueError(
            f"{name}: each {group} query heads in order share one key and value head and go together, such as "
            f"{list(range(group))}, got {list(removed)}"
        )
    if len(gone) == shared:
        raise ValueError(f"{name} must keep at least one head, and is to lose all {heads}")
    return torch.tensor([unit for unit in range(shared) if unit not in gone])


def prune_heads(
    model: nn.Module,
    fraction: float | None = None,
    batches: Sequence[Any] = (),
    *,
    heads: Mapping[int, Iterable[int]] | Mapping[str, Iterable[int]] | None = None,
    criterion: str = "taylor",
    loss: Loss | None = None,
    targets: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    scope: str = "layer",
    minimum: int = 1,
) -> dict[str, int]:
    """Remove attention heads, in place: query, key, value and output layers become smaller dense layers.

    The head size and the width of the residual stream do not change. Query heads that share a key/value head
    (grouped-query attention) are removed together with it. The head counts that attention modules read are updated.
    Modules stay the same objects with new, smaller parameters, so create optimizers afterwards. Most configs derive the
    head size from the number of heads: they keep that number, and the new shapes are recorded in
    `config.sparsekit_widths`, from which `resize_to` builds a model that the weights fit. Phi-3's config stores both,
    so its head counts are updated.

    The pruned model then runs on a tiny input, taken from the batches or generated: its outputs must equal those of the
    original with these heads zeroed, and its config must rebuild it. If either check fails, everything is restored (the
    old weights are kept until then); if no input can be found, a warning says that the model was not run.

    Args:
        model: any model whose attentions match `attention_patterns.PATTERNS`.
        fraction: fraction of the heads to remove, in [0, 1).
        batches: for "activation" and "taylor": keyword arguments of the model's forward; see `prune_neurons`.
        heads: instead of a fraction: attention name, or index in model order -> query heads to remove.
        criterion: "taylor": first-order estimate of how much the loss changes without a head; "activation": mean
            absolute output of a head, over tokens that are not padding; "magnitude": norm of its weights.
        loss: for "taylor": a function of the model and a batch that returns a scalar; None: the loss in the model's
            output.
        targets: prune only attentions with a layer that matches: class names, module names or "re:" patterns.
        ignore: skip attentions with a layer that matches; same patterns.
        scope: "layer" removes the fraction in every attention; "global" over all of them together.
        minimum: least number of heads (with grouped queries: of groups) to keep in every attention.

    Returns:
        Name of the attention -> number of query heads left.

    Raises:
        TypeError: a layer is not an `nn.Linear` or `Conv1D` (converted, quantized, wrapped), or targets or ignore is a
            string.
        ValueError: an argument is out of range or contradicts another; no attention is found; `heads` splits a group
            that shares a key/value head, or attentions that share position biases (T5, MPNet); an attention would lose
            all heads, or has per-head parameters outside its layers; a layer is masked (call `finalize` first) or
            shares its weight; or the pruned model fails the checks. The model is unchanged then.
    """
    if heads is None:
        check_amount(fraction, None, scope, minimum)
        score_units = find_unit_score(criterion, batches, loss)
        attentions = _select(model, targets, ignore)
        units = _check(model, attentions)
        check_values(model, units)
        scores = score_units(model, units, batches, loss)
        kept = choose_heads(scores, tied_heads(model, attentions), fraction, scope, minimum)
    elif fraction is not None or batches or loss is not None or targets is not None or ignore:
        raise ValueError("heads stands alone: leave out fraction, batches, loss, targets and ignore")
    else:
        removed = _named(_select(model, None, ()), heads)
        attentions = [attention for attention, _ in removed]
        units = _check(model, attentions)
        kept = {
            attention.name: _kept_units(attention.name, gone, *head_counts(model, attention))
            for attention, gone in removed
        }
        check_same_heads(tied_heads(model, attentions), kept)
    with removing(model, units, kept, batches, loss, "without these heads"):
        _remove(model, units, attentions, kept)
    return {attention.name: head_counts(model, attention)[0] for attention in attentions}
