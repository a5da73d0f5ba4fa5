"""Units that are removed whole (neurons of an MLP, heads of an attention): their features in layers, which stay."""

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
    """A layer whose outputs are units, in runs of all units, one run after the other."""

    layer: str
    runs: tuple[
        int, ...
    ]  # outputs of one unit in each run; several where gate and up, or query, key and value, are one
    shared: int = 0  # last outputs, which are of all units and stay


@dataclass(frozen=True)
class Units:
    """Units between the layers that make them and the one that reads them."""

    name: str
    producers: tuple[Producer, ...]
    consumer: str
    size: int  # inputs of the consumer that one unit is
    count: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, producers first."""
        return (*(producer.layer for producer in self.producers), self.consumer)


def check_amount(fraction: float | None, threshold: float | None, scope: str, minimum: int) -> None:
    """Raise ValueError unless exactly one of fraction and threshold says how much goes, and all are in range."""
    if (fraction is None) == (threshold is None):
        raise ValueError(f"give either fraction or threshold, got fraction={fraction} and threshold={threshold}")
    if fraction is not None and not 0.0 <= fraction < 1.0:
        raise ValueError(f"fraction must be in [0, 1), got {fraction}; 0.3 removes 30%")
    if scope not in _SCOPES:
        raise ValueError(f"scope must be one of {', '.join(_SCOPES)}, got {scope!r}")
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1, got {minimum}: what is empty cannot run")


def select_by_layers(
    model: nn.Module, layers: Mapping[str, Iterable[str]], targets: Iterable[str] | None, ignore: Iterable[str]
) -> list[str]:
    """Which of several sets of layers to work on: those with a layer that is targeted, and none that is ignored.

    Args:
        model: the model.
        layers: name of a set -> its layers.
        targets: patterns as in `select`; None: all.
        ignore: patterns of layers to leave out.

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
    """Raise ValueError when a layer's shape does not fit its units, or a layer makes or reads units of two sets."""
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
    """Scores whose `minimum` highest can never be among the lowest."""
    best = scores.topk(min(minimum, len(scores))).indices
    return scores.clone().index_fill_(0, best, torch.inf)


def _without_lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Mask of scores without the `count` lowest, or as many as are not protected; True stays."""
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
    """Which units stay.

    Args:
        scores: name -> one score a unit, shape [units].
        fraction: the lowest `round(fraction * units)` go, of each set or of all together; None: see `threshold`.
        threshold: units whose score is below it go.
        scope: "layer" or "global".
        minimum: how many stay in each set, whatever their scores.

    Returns:
        name -> numbers of the units that stay, ascending, int64.

    Raises:
        ValueError: scores hold inf or NaN.
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
    """Numbers of the features that units have in a layer, ascending."""
    found, start = [], 0
    for size in runs:
        found.append((start + kept[:, None] * size + torch.arange(size)).flatten())
        start += count * size
    return torch.cat([*found, torch.arange(start, start + shared)])


def lost_inputs(units: Units, kept: torch.Tensor) -> torch.Tensor:
    """Numbers of the consumer's inputs that go with the units that do not stay, int64."""
    stays = torch.zeros(units.count * units.size, dtype=torch.bool)
    stays[_features(kept, [units.size], units.count)] = True
    return (~stays).nonzero().flatten()


def keep_units(model: nn.Module, units: Units, kept: torch.Tensor) -> None:
    """Remove all units but some: the layers shrink, in place.

    Args:
        model: the model that holds the layers.
        units: where they lie.
        kept: numbers of those that stay, int64.
    """
    if len(kept) == units.count:
        return
    for producer in units.producers:
        outputs = _features(kept, producer.runs, units.count, producer.shared)
        keep_outputs(model.get_submodule(producer.layer), outputs)
    keep_inputs(model.get_submodule(units.consumer), _features(kept, [units.size], units.count))
