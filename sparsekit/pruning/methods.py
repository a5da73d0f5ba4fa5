"""Every pruning method: what it needs and what runs it. `prune`, recipes, the command line and documents read this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsekit.pruning.calibration.gradients import Loss, mean_squared_gradients
from sparsekit.pruning.calibration.input_norms import input_norms
from sparsekit.pruning.calibration.inverse_fisher import inverse_diagonals
from sparsekit.pruning.criteria import fisher, magnitude, taylor, wanda
from sparsekit.pruning.movement import apply_movement
from sparsekit.pruning.obert import prune_obert
from sparsekit.pruning.sparsegpt.blockwise import prune_sparsegpt
from sparsekit.pruning.structured.unit_scores import UnitScore, loss_changes, mean_activations, weight_norms


@dataclass(frozen=True)
class Method:
    """One pruning method.

    Attributes:
        name: what `criterion=`, recipes and the command line call it.
        summary: what it does, in a line.
        needs_batches: whether it is measured on calibration batches.
        needs_loss: whether it also needs a loss, so that batches must have labels.
        scopes: among which weights the lowest scores go, the default first; empty where it prunes layer by layer.
        score: of a weight, [out_features, in_features], and its layer's statistics: scores of the weight's shape.
        statistics: of a model, its layers by name, batches and, with `needs_loss`, a loss: statistics by layer name.
        unit_score: scores neurons and heads, for `prune_neurons` and `prune_heads`.
        function: prunes by itself where there is more to do than to mask the lowest scores.
        takes: keyword arguments of `function` beside those that all have.
        scored_by: criterion whose scores stand in where only scores are wanted, as by `allocate_sparsity`.
        while_training: whether it prunes only while a model is trained.
    """

    name: str
    summary: str
    needs_batches: bool = True
    needs_loss: bool = False
    scopes: tuple[str, ...] = ()
    score: Callable[[torch.Tensor, Any], torch.Tensor] | None = None
    statistics: Callable[..., Mapping[str, Any]] | None = None
    unit_score: UnitScore | None = None
    function: Callable[..., Any] | None = None
    takes: tuple[str, ...] = ()
    scored_by: str | None = None
    while_training: bool = False


_LAYER_FIRST = ("layer", "row", "global")

#: Methods by name.
METHODS = {
    method.name: method
    for method in (
        Method(
            "sparsegpt",
            "layer by layer, corrects the weights that stay to preserve each layer's outputs",
            function=prune_sparsegpt,
            takes=("damping", "dtype", "on_layer"),
            scored_by="wanda",
        ),
        Method(
            "obert",
            "by the inverse Fisher matrix of the loss, corrects the weights that stay",
            needs_loss=True,
            function=prune_obert,
            takes=("loss", "fisher_block_size", "damping", "num_gradients", "max_bytes"),
            scored_by="wanda",
        ),
        Method(
            "wanda",
            "magnitude times the norm of the input",
            scopes=("row", "layer", "global"),
            score=wanda.score,
            statistics=input_norms,
        ),
        Method(
            "magnitude",
            "absolute value",
            needs_batches=False,
            scopes=_LAYER_FIRST,
            score=magnitude.score,
            unit_score=weight_norms,
        ),
        Method(
            "taylor",
            "first-order change of the loss",
            needs_loss=True,
            scopes=_LAYER_FIRST,
            score=taylor.score,
            statistics=mean_squared_gradients,
            unit_score=loss_changes,
        ),
        Method(
            "fisher",
            "second-order change of the loss, without correction",
            needs_loss=True,
            scopes=_LAYER_FIRST,
            score=fisher.score,
            statistics=inverse_diagonals,
        ),
        Method("activation", "mean absolute activation of a neuron or head", unit_score=mean_activations),
        Method(
            "movement",
            "scores learned while fine-tuning",
            needs_batches=False,
            function=apply_movement,
            takes=("soft", "threshold"),
            while_training=True,
        ),
    )
}


def weight_methods() -> list[str]:
    """Names of the methods that `prune` takes: they prune weights without training."""
    return [name for name, one in METHODS.items() if (one.score or one.function) and not one.while_training]


def find_unit_score(criterion: str, batches: Sequence[Any], loss: Loss | None) -> UnitScore:
    """What scores neurons and heads.

    Raises:
        ValueError: as `find_method` and `check_needs`.
    """
    scores = {name: one.unit_score for name, one in METHODS.items() if one.unit_score is not None}
    check_needs(find_method(criterion, scores), batches, loss)
    return scores[criterion]


def find_method(criterion: str, names: Iterable[str]) -> Method:
    """The method of a name.

    Raises:
        ValueError: it is not among `names`.
    """
    names = list(names)
    if criterion not in names:
        raise ValueError(f"criterion must be one of {', '.join(names)}, got {criterion!r}")
    return METHODS[criterion]


def check_needs(method: Method, batches: Sequence[Any], loss: Loss | None) -> None:
    """Raise ValueError unless a method is given the batches and the loss that it needs, and no others."""
    if method.needs_batches != bool(batches):
        raise ValueError(f"criterion {method.name!r} needs {'calibration' if method.needs_batches else 'no'} batches")
    if loss is not None and not method.needs_loss:
        raise ValueError(f"criterion {method.name!r} takes no loss; leave it out")
