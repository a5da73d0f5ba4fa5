"""Predict the time of a whole model: its products by the table, and the rest, which is measured once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.bench.layers.random_weights import random_weight
from sparsekit.choose.calls import Call
from sparsekit.choose.imposed_weights import compile_with
from sparsekit.choose.levels import SPARSITIES, Form
from sparsekit.choose.times import TimeTable
from sparsekit.choose.whole_models import measure_whole


class ModelTimes:
    """Seconds of a model's calls, whatever levels its layers have.

    Args:
        table: of its products.
        rest: type of the weights and call -> seconds beside products, as `measure_rest` gives them.
    """

    def __init__(self, table: TimeTable, rest: Mapping[tuple[str, Call], float]) -> None:
        self.table = table
        self.rest = rest

    def of_layers(self, form: Form, call: Call) -> dict[str, NDArray[np.float64]]:
        """As `TimeTable.of_layers`: what a search adds up."""
        return self.table.of_layers(form, call)

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
        if (form.dtype, call) not in self.rest:
            raise ValueError(f"the rest must be known of {form.dtype} for {call}; measure_rest takes both")
        products = sum(float(seconds[layer][level]) for layer, level in assignment.items())
        return self.rest[form.dtype, call] + products


def _check(assignment: Mapping[str, int], layers: Mapping[str, NDArray[np.float64]]) -> None:
    for layer in [*layers, *assignment]:
        if layer not in assignment or layer not in layers:
            what = "lacks" if layer in layers else "must not have"
            raise ValueError(f"the assignment {what} {layer!r}; it must have the layers of ModelProducts.layers")
        if not 0 <= assignment[layer] < len(SPARSITIES):
            raise ValueError(f"the level of {layer!r} must be from 0 to {len(SPARSITIES) - 1}, got {assignment[layer]}")


def measure_rest(
    folder: Path | str,
    table: TimeTable,
    dtypes: Iterable[str],
    calls: Iterable[Call],
    *,
    pooling: str | None = None,
    embeddings: str | None = None,
) -> dict[tuple[str, Call], float]:
    """Measure what a model's calls take beside its products: attention, norms, embeddings, head.

    It is the time of the whole model without that of its products, at the highest level: there these are the least part
    of it, and so are errors of their times. The model is compiled with random weights at that level, and called with
    random ids.

    Args:
        folder: that `table.products` are of, as the next ones.
        table: with times of all `dtypes`, unstructured, for all `calls`.
        dtypes: of the weights.
        calls: of the model.
        pooling: as in `products_of`.
        embeddings: their type, as in `compile_model`.

    Returns:
        Type and call -> seconds. Noise may make them negative.

    Raises:
        ValueError: as `compile_model`; the model has no positions for a call; `table` lacks one.
    """
    found, calls = {}, list(calls)
    thinned = dict.fromkeys(table.products.layers, _thinned)
    with runtime.limited_threads(table.threads):
        for dtype in dict.fromkeys(dtypes):
            form = Form(dtype, "unstructured")
            products = {call: sum(float(one[-1]) for one in table.of_products(form, call)) for call in calls}
            model = compile_with(folder, thinned, dtype=dtype, pooling=pooling, embeddings=embeddings)
            for call in calls:
                timing = measure_whole({dtype: model}, call, decodes=table.products.decodes)[dtype]
                found[dtype, call] = timing.low - products[call]
    return found


def _thinned(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A random weight of this shape, at the highest level."""
    rows, columns = weight.shape
    return random_weight((rows, columns), SPARSITIES[-1])
