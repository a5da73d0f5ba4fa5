"""Units that are removed as a whole (neurons of an MLP, heads of an attention), and the features they occupy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparsekit.introspect.selection import select
from sparsekit.pruning.structured.narrowing import keep_inputs, keep_outputs, shape_of

_SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Producer:
    """A layer that computes units: its outputs are one or more consecutive runs, each with all units in order."""

    layer: str
    runs: tuple[int, ...]  # outputs per unit in each run; several if gate and up, or query, key and value, are fused
    shared: int = 0  # number of trailing outputs that all units share, and that are kept


@dataclass(frozen=True)
class Units:
    """Units between the layers that produce them and the one that consumes them."""

    name: str
    producers: tuple[Producer, ...]
    consumer: str
    size: int  # inputs of the consumer per unit
    count: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, producers first."""
        return (*(producer.layer for producer in self.producers), self.consumer)


def check_amount(fraction: float | None, threshold: float | None, scope: str, minimum: int) -> None:
    """Raise ValueError unless exactly one of fraction and threshold is given, and everything is in range."""
    if (fraction is None) == (threshold is None):
        raise ValueError(f"give either fraction or threshold, got fraction={fraction} and threshold={threshold}")
    if fraction is not None and not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction must be in [0, 1), got {fraction}; 0.3 removes 30%")
    if scope not in _SCOPES:
        raise ValueError(f"scope must be one of {', '.join(_SCOPES)}, got {scope!r}")
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1, got {minimum}: an empty layer cannot run")


def select_by_layers(
    model: nn.Module, layers: Mapping[str, Iterable[str]], targets: Iterable[str] | None, ignore: Iterable[str]
) -> list[str]:
    """Names of the sets of layers to prune: those with a targeted layer and without an ignored one.

    Args:
        model: the model.
        layers: name of a set -> names of its layers.
        targets: patterns as in `select`; None: all.
        ignore: patterns of layers to skip.

    Raises:
        TypeError, ValueError: as `select`; also when nothing is left.
    """
    targets = targets if targets is None or isinstance(targets, str) else list(targets)
    ignore = ignore if isinstance(ignore, str) else list(ignore)
    ignored = {name for name, _ in model.named_modules()} - set(select(model, ["re:"], ignore))
    wanted = None if targets is None else set(select(model, targets))
    chosen = [
        name
        for name, own in layers.items()
        if ignored.isdisjoint(own) and (wanted is None or not wanted.isdisjoint(own))
    ]
    if not chosen:
        raise ValueError(f"targets {targets} with ignore {ignore} leave none of {', '.join(layers)}")
    return chosen


def check_units(model: nn.Module, units: Sequence[Units]) -> None:
    """Raise ValueError if a layer's shape does not fit its units, or a layer belongs to two sets of units."""
    made = [producer.layer for one in units for producer in one.producers]
    for layers in (made, [one.consumer for one in units]):
        for layer in layers:
            if layers.count(layer) > 1:
                raise ValueError(f"{layer} is named twice; every layer makes and reads one set of units")
    for one in units:
        for producer in one.producers:
            wanted = sum(producer.runs) * one.count + producer.shared
            outputs, _ = shape_of(model.get_submodule(producer.layer))
            if outputs != wanted:
                raise ValueError(
                    f"{producer.layer} must have {wanted} outputs for the {one.count} units that {one.consumer} reads, "
                    f"got {outputs}; name layers that belong together"
                )


def _protected(scores: torch.Tensor, minimum: int) -> torch.Tensor:
    """A copy of the scores with the `minimum` highest set to infinity, so that they are always kept."""
    best = scores.topk(min(minimum, len(scores))).indices
    return scores.clone().index_fill_(0, best, torch.inf)


def _without_lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Mask that is False for the `count` lowest scores, or fewer if the others are protected; True is kept."""
    count = min(count, int(scores.isfinite().sum()))
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep[scores.topk(count, largest=False).indices] = False
    return keep


def choose_units(
    scores: Mapping[str, torch.Tensor],
    fraction: float | None,
    threshold: float | None,
    *,
    scope: str = "layer",
    minimum: int = 1,
) -> dict[str, torch.Tensor]:
    """Choose the units to keep.

    Args:
        scores: name -> one score per unit, shape [units].
        fraction: remove the lowest `round(fraction * units)`, of each set or of all together; None: see `threshold`.
        threshold: remove units whose score is below it.
        scope: "layer" or "global".
        minimum: how many to keep in each set, whatever their scores.

    Returns:
        name -> indices of the units to keep, ascending, int64.

    Raises:
        ValueError: scores contain inf or NaN.
    """
    for name, score in scores.items():
        if not score.isfinite().all():
            raise ValueError(f"{name}: scores hold inf or NaN; check the weights and the calibration batches")
    guarded = {name: _protected(score, minimum) for name, score in scores.items()}
    if threshold is not None:
        keep = {name: score >= threshold for name, score in guarded.items()}
    elif scope == "global":
        flat = torch.cat(list(guarded.values()))
        lengths = [len(score) for score in guarded.values()]
        parts = _without_lowest(flat, round((fraction or 0.0) * len(flat))).split(lengths)
        keep = dict(zip(guarded, parts, strict=True))
    else:
        keep = {name: _without_lowest(score, round((fraction or 0.0) * len(score))) for name, score in guarded.items()}
    return {name: mask.nonzero().flatten() for name, mask in keep.items()}


def _features(kept: torch.Tensor, runs: Iterable[int], count: int, shared: int = 0) -> torch.Tensor:
    """Indices of the features that the kept units occupy in a layer, ascending."""
    found, start = [], 0
    for size in runs:
        found.append((start + kept[:, None] * size + torch.arange(size)).flatten())
        start += count * size
    return torch.cat([*found, torch.arange(start, start + shared)])


def lost_inputs(units: Units, kept: torch.Tensor) -> torch.Tensor:
    """Indices of the consumer's inputs that belong to removed units, int64."""
    stays = torch.zeros(units.count * units.size, dtype=torch.bool)
    stays[_features(kept, [units.size], units.count)] = True
    return (~stays).nonzero().flatten()


def keep_units(model: nn.Module, units: Units, kept: torch.Tensor) -> None:
    """Remove units by narrowing their layers in place.

    Args:
        model: the model that holds the layers.
        units: the units and their layers.
        kept: indices of the units to keep, int64.
    """
    if len(kept) == units.count:
        return
    for producer in units.producers:
        outputs = _features(kept, producer.runs, units.count, producer.shared)
        keep_outputs(model.get_submodule(producer.layer), outputs)
    keep_inputs(model.get_submodule(units.consumer), _features(kept, [units.size], units.count))
