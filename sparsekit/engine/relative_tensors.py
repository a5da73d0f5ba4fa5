"""Tensors of disentangled attention, computed when a model is compiled.

A layer's projections of the relative embeddings do not depend on its input, so the products are stored instead of the
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sparsekit.engine.compiled_file import NO_LAYER, Tensor
from sparsekit.engine.linear_tensors import check_name
from sparsekit.engine.positions import distance_rows
from sparsekit.engine.relative_config import RelativeConfig
from sparsekit.engine.weights import Weights


def relative_tensors(
    relative: RelativeConfig, layers: int, norm_eps: float, weights: Weights, name_of: Callable[[str, int | None], str]
) -> Iterator[Tensor]:
    """Row for each distance, and the tables of each layer.

    Args:
        relative: options of disentangled attention.
        layers: number of layers.
        norm_eps: epsilon of layer norms.
        weights: weights of the model.
        name_of: name of a module, in a layer or outside the layers.

    Raises:
        ValueError: a tensor is missing, damaged or has a wrong shape.
    """
    rows = distance_rows(relative.tokens, relative.span, relative.buckets, relative.farthest)
    yield Tensor.of_floats(NO_LAYER, "distance_rows", rows.astype(np.float32))
    embeddings = _floats(weights, name_of("relative_embeddings", None) + ".weight", (2 * relative.span, None))
    if relative.normed:
        embeddings = _normed(weights, name_of("relative_norm", None), embeddings, norm_eps)
    for layer in range(layers):
        for table, module in relative.projections.items():
            yield Tensor.of_floats(layer, table, _projected(weights, name_of(module, layer), embeddings))


def _floats(weights: Weights, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Read a tensor of the given shape, in which None stands for any size."""
    check_name(weights, name)
    values = weights.floats(name)
    if values.ndim != len(shape) or any(
        size not in (None, found) for size, found in zip(shape, values.shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name!r} must have shape [{wanted}], got {list(values.shape)}")
    return values.astype(np.float64)


def _normed(weights: Weights, norm: str, values: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    features = values.shape[1]
    centered = values - values.mean(1, keepdims=True)
    scaled: NDArray[np.float64] = centered / np.sqrt((centered * centered).mean(1, keepdims=True) + eps)
    return scaled * _floats(weights, f"{norm}.weight", (features,)) + _floats(weights, f"{norm}.bias", (features,))


def _projected(weights: Weights, module: str, values: NDArray[np.float64]) -> NDArray[np.float32]:
    weight = _floats(weights, f"{module}.weight", (None, values.shape[1]))
    projected = values @ weight.T
    if f"{module}.bias" in weights.names:
        projected += _floats(weights, f"{module}.bias", (len(weight),))
    return projected.astype(np.float32)
