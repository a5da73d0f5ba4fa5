"""Predict the time of a whole model: its products by the table, fitted to whole models that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.bench.layers.random_weights import random_weight
from sparsekit.choose.assignments.levels import SPARSITIES, Form
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.imposed_weights import compile_with
from sparsekit.choose.times.table import TimeTable
from sparsekit.choose.times.whole_models import measure_whole


@dataclass(frozen=True)
class Fit:
    """How the time of a call follows from the table.

    Attributes:
        rest: seconds beside products: attention, norms, embeddings, head. Noise may make them negative.
        scale: what the table's seconds are multiplied with: products find other things in the caches within a model,
            and the machine may have changed since.
    """

    rest: float
    scale: float = 1.0


class ModelTimes:
    """Seconds of a model's calls, whatever levels its layers have.

    Args:
        table: of its products.
        fits: type of the weights and call -> how they are fitted, as `fit_whole` gives them.
    """

    def __init__(self, table: TimeTable, fits: Mapping[tuple[str, Call], Fit]) -> None:
        self.table = table
        self.fits = fits

    def of_layers(self, form: Form, call: Call) -> dict[str, NDArray[np.float64]]:
        """Seconds of each linear layer, shape [levels]: with the rest they add up to what `predicted` gives.

        Args:
            form: of the weights.
            call: of the model.

        Raises:
            ValueError: the form or the call was not measured.
        """
        scale = self._fit(form, call).scale
        return {layer: scale * seconds for layer, seconds in self.table.of_layers(form, call).items()}

    def rest(self, form: Form, call: Call) -> float:
        """Seconds beside the linear layers.

        Raises:
            ValueError: as `of_layers`.
        """
        return self._fit(form, call).rest

    def _fit(self, form: Form, call: Call) -> Fit:
        if (form.dtype, call) not in self.fits:
            raise ValueError(f"whole models must be measured in {form.dtype} for {call}; fit_whole takes both")
        return self.fits[form.dtype, call]

    def predicted(self, assignment: Mapping[str, int], form: Form, call: Call) -> float:
        """Seconds of a call.

        Args:
            assignment: level of every linear layer of the transformer blocks that has a product.
            form: of the weights.
            call: of the model.

        Raises:
            ValueError: a layer is missing or unknown, or has no such level; the form or the call was not measured.
        """
        seconds = self.of_layers(form, call)
        _check(assignment, seconds)
        return self.rest(form, call) + sum(float(seconds[layer][level]) for layer, level in assignment.items())


def _check(assignment: Mapping[str, int], layers: Mapping[str, NDArray[np.float64]]) -> None:
    for layer in [*layers, *assignment]:
        if layer not in assignment or layer not in layers:
            what = "lacks" if layer in layers else "must not have"
            raise ValueError(f"the assignment {what} {layer!r}; it must have the layers of ModelProducts.layers")
        if not 0 <= assignment[layer] < len(SPARSITIES):
            raise ValueError(f"the level of {layer!r} must be from 0 to {len(SPARSITIES) - 1}, got {assignment[layer]}")


def fit_whole(
    folder: Path | str,
    table: TimeTable,
    dtypes: Iterable[str],
    calls: Iterable[Call],
    *,
    pooling: str | None = None,
    embeddings: str | None = None,
) -> dict[tuple[str, Call], Fit]:
    """Fit the table to the whole model, measured twice: dense, and with random weights at the highest level.

    Both are called with random ids. In the latter products are the least part of the time, and so are errors of theirs.

    Args:
        folder: that `table.products` are of, as the next ones.
        table: with times of all `dtypes`, unstructured, for all `calls`.
        dtypes: of the weights.
        calls: of the model.
        pooling: as in `products_of`.
        embeddings: their type, as in `compile_model`.

    Returns:
        Type and call -> fit.

    Raises:
        ValueError: as `compile_model`; the model has no positions for a call; `table` lacks one.
    """
    found, calls = {}, list(calls)
    with runtime.limited_threads(table.threads):
        for dtype in dict.fromkeys(dtypes):
            products = {call: _products(table, Form(dtype, "unstructured"), call) for call in calls}
            models = {
                name: compile_with(folder, changes, dtype=dtype, pooling=pooling, embeddings=embeddings)
                for name, changes in {"dense": {}, "thinned": dict.fromkeys(table.products.layers, _thinned)}.items()
            }
            for call in calls:
                timings = measure_whole(models, call, decodes=table.products.decodes)
                found[dtype, call] = _fit(timings["dense"].low, timings["thinned"].low, products[call])
    return found


def _products(table: TimeTable, form: Form, call: Call) -> NDArray[np.float64]:
    """Seconds of all products by level."""
    return sum(table.of_products(form, call), np.zeros(len(SPARSITIES)))


def _fit(dense: float, thinned: float, products: NDArray[np.float64]) -> Fit:
    """The fit that is right for both models; where noise allows none, for the thinned one alone."""
    gained, expected = dense - thinned, float(products[0] - products[-1])
    scale = gained / expected if gained > 0 and expected > 0 else 1.0
    return Fit(thinned - scale * float(products[-1]), scale)


def _thinned(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A random weight of this shape, at the highest level."""
    rows, columns = weight.shape
    return random_weight((rows, columns), SPARSITIES[-1])
