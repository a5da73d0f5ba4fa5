"""Times of a model's products in the engine, at every level and in every form, measured once on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.bench.layers.random_weights import random_weight
from sparsekit.choose.assignments.levels import SPARSITIES, Form
from sparsekit.choose.times.calls import Call
from sparsekit.choose.times.multiplication import Multiplication
from sparsekit.choose.times.products import ModelProducts, Shape
from sparsekit.choose.times.stored_times import Cell, StoredTimes
from sparsekit.engine.layouts import Layouts
from sparsekit.formats import CSR
from sparsekit.timing.comparing import clock_for, compare

#: Seconds for all levels of a cell, and at most while the machine is too noisy to tell.
_SECONDS, _AT_MOST = 0.3, 1.0
#: Tokens in a call up to which it matters where weights come from: with more, each is used so often once it is read.
_FEW_TOKENS = 64


@dataclass(frozen=True)
class TimeTable:
    """Seconds of a model's products.

    Attributes:
        products: of the model.
        threads: with which they were measured.
        seconds: what was measured -> seconds by level.
    """

    products: ModelProducts
    threads: int
    seconds: Mapping[Cell, Sequence[float]]

    def of_products(self, form: Form, call: Call) -> list[NDArray[np.float64]]:
        """Seconds of each product in a call of the model, shape [levels].

        Raises:
            ValueError: they were not measured.
        """
        found = []
        for product, counts in self.products.of_call(call, self.threads):
            cells = {_cell(self.products, product.shape, form, tokens): times for tokens, times in counts.items()}
            missing = next((cell for cell in cells if cell not in self.seconds), None)
            if missing is not None:
                raise ValueError(f"the table must have times of {form} for {call}, got none; measure_times takes both")
            found.append(sum((times * np.array(self.seconds[cell]) for cell, times in cells.items()), _ZEROS.copy()))
        return found

    def of_layers(self, form: Form, call: Call) -> dict[str, NDArray[np.float64]]:
        """Seconds of each linear layer in a call of the model, shape [levels], in the order of `ModelProducts.layers`.

        Of a product of several, each has the part that it has of the weights, as if all had its level.

        Args:
            form: of the weights.
            call: of the model.

        Raises:
            ValueError: they were not measured.
        """
        found = {layer: _ZEROS.copy() for layer in self.products.layers}
        for product, seconds in zip(self.products.products, self.of_products(form, call), strict=True):
            for layer, share in product.shares().items():
                found[layer] += share * seconds
        return found


_ZEROS: NDArray[np.float64] = np.zeros(len(SPARSITIES))


def measure_times(
    products: ModelProducts,
    forms: Iterable[Form],
    calls: Iterable[Call],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    deadline: float | None = None,
) -> TimeTable:
    """Measure a model's products on random weights, at each of `SPARSITIES`.

    What the user's cache folder has of this processor, instruction set, number of threads and version is not measured
    again. Weights have the layouts that `compile_model(measure=True)` chooses for them.

    Args:
        products: of the model.
        forms: of the weights.
        calls: of the model that are to be predicted.
        threads: torch's, where it is loaded, or the pool's; None for as many as there are now.
        progress: called with the number of measurements that are done, and of all.
        deadline: `time.monotonic()` after which nothing more is measured; None for none.

    Raises:
        OSError: the cache folder cannot be written.
        TimeoutError: the deadline passed; what was measured by then is kept.
    """
    with runtime.limited_threads(threads):
        count = runtime.num_threads()
        cells = _cells(products, list(forms), list(calls), count)
        stored = StoredTimes()
        seconds = {}
        for shape in products.shapes:
            seconds.update({cell: found for cell, found in stored.times_of(shape).items() if cell in cells})
        _measure_missing(cells, seconds, stored, progress or _silent, deadline)
        return TimeTable(products, count, seconds)


def _silent(done: int, total: int) -> None:
    del done, total


def _cell(products: ModelProducts, shape: Shape, form: Form, tokens: int) -> Cell:
    copies = max(1, round(products.weights / shape.weights)) if tokens <= _FEW_TOKENS else 1
    return Cell(shape, form, tokens, copies, products.decodes)


def _cells(products: ModelProducts, forms: Sequence[Form], calls: Sequence[Call], threads: int) -> list[Cell]:
    """All that is to be known, by shape and form."""
    wanted: dict[Shape, set[int]] = {shape: set() for shape in products.shapes}
    for call in calls:
        for product, counts in products.of_call(call, threads):
            wanted[product.shape] |= set(counts)
    return [
        _cell(products, shape, form, tokens)
        for shape, numbers in wanted.items()
        for form in dict.fromkeys(forms)
        for tokens in sorted(numbers)
    ]


def _measure_missing(
    cells: Collection[Cell],
    seconds: dict[Cell, tuple[float, ...]],
    stored: StoredTimes,
    progress: Callable[[int, int], None],
    deadline: float | None,
) -> None:
    """Measure the cells that have no seconds yet, and store each at once."""
    weights: dict[tuple[Shape, Form], list[list[runtime.Packed]]] = {}
    for cell in [cell for cell in cells if cell not in seconds]:
        progress(len(seconds), len(cells))
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{len(seconds)} of {len(cells)} times were measured by the deadline; they are kept: "
                               "run again to go on")  # fmt: skip
        key = cell.shape, cell.form
        if key not in weights:
            weights = {key: _packed(cell.shape, cell.form, Layouts(measure=True, decodes=cell.decodes))}
        seconds[cell] = _measured(weights[key], cell)
        stored.keep(cell, seconds[cell])
    progress(len(seconds), len(cells))


def _packed(shape: Shape, form: Form, layouts: Layouts) -> list[list[runtime.Packed]]:
    """Weights of a product at each level, in the layouts of a compiled model."""
    return [
        [
            layouts.pack(
                CSR.from_dense(random_weight((rows, shape.in_features), sparsity, form.block)),
                form.dtype,
            )
            for rows in shape.out_features
        ]
        for sparsity in SPARSITIES
    ]


def _measured(weights: Sequence[Sequence[runtime.Packed]], cell: Cell) -> tuple[float, ...]:
    """Seconds of a product at each level, interleaved."""
    runs = {str(level): Multiplication(joined, cell.tokens, cell.copies) for level, joined in enumerate(weights)}
    warm = {level: run.copies for level, run in runs.items()}
    clock = clock_for(runtime.num_threads())
    timings = compare(runs, seconds=_SECONDS, at_most=_AT_MOST, warm=warm, clock=clock)
    return tuple(timings[level].low for level in runs)
