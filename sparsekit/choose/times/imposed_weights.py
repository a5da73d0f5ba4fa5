"""Compile a dense model as if some of its layers had other weights: nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.compiling import compiled
from sparsekit.engine.layouts import Layouts
from sparsekit.engine.weights import Part, Weights, open_weights
from sparsekit.formats import CSR
from sparsekit.io.hub_cache import local_folder

#: Linear layer -> what makes the weight [rows, in_features] that it is to have of some of its rows as they are.
Changes: TypeAlias = Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]]


def compile_with(
    folder: Path | str, changes: Changes, *, dtype: str, pooling: str | None = None, embeddings: str | None = None
) -> NDArray[np.uint8]:
    """Compile a model with other weights, in the layouts that are fastest here.

    Args:
        folder: of the dense model, as in `products_of`.
        changes: of its linear layers; the others stay.
        dtype: of the weights, as in `compile_model`, like the next ones.
        pooling: likewise.
        embeddings: likewise.

    Raises:
        ValueError: as `compile_model`.
    """

    def opened(path: Path, layouts: Layouts) -> Weights:
        return _ImposedWeights(open_weights(path, layouts), layouts, changes)

    layouts = Layouts(measure=True)
    return compiled(local_folder(folder), dtype, embeddings, pooling, layouts, opened).in_memory()


class _ImposedWeights:
    """Weights of a model, some of which are others once they are packed."""

    def __init__(self, weights: Weights, layouts: Layouts, changes: Changes) -> None:
        self._weights, self._layouts, self._changes = weights, layouts, changes

    @property
    def names(self) -> Set[str]:
        return self._weights.names

    def floats(self, name: str) -> NDArray[np.float32]:
        return self._weights.floats(name)

    def quantized(self, embedding: str) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
        return self._weights.quantized(embedding)

    def packed(self, layer: str, dtype: str, part: Part) -> runtime.Packed:
        if layer not in self._changes:
            return self._weights.packed(layer, dtype, part)
        weight = self._changes[layer](part.of(layer, self.floats(f"{layer}.weight")))
        return self._layouts.pack(CSR.from_dense(weight), dtype)

    def activation(self, layer: str) -> str | None:
        return self._weights.activation(layer)
