"""Convert a linear layer of a model folder to tensors of a compiled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sparsekit import runtime
from sparsekit.engine.compiled_file import Tensor
from sparsekit.engine.weights import WHOLE, Part, Weights

#: Linear layers that the core computes in one call, of one input: csrc/model's encoder_layer, decoder_layer and
#: feed_forward.
JOINED = (("query", "key", "value"), ("up", "gate"))


class LayerLinear(NamedTuple):
    """A linear layer that the core runs in a transformer block."""

    layer: int  # number of the transformer block
    kind: str
    module: str  # its name in the model
    part: Part  # of the module's rows


def stored_vector(weights: Weights, layer: int, role: str, name: str, part: Part = WHOLE) -> Tensor:
    """Read a one-dimensional tensor, or a part of it.

    Raises:
        ValueError: it is missing, damaged or not one-dimensional.
    """
    check_name(weights, name)
    values = weights.floats(name)
    if values.ndim != 1:
        raise ValueError(f"{name!r} must have one dimension, got shape {list(values.shape)}")
    return Tensor.of_floats(layer, role, values[part.rows(name, len(values))])


def linear_tensors(
    weights: Weights,
    layer: int,
    role: str,
    module: str,
    dtype: str,
    activation: str | None = None,
    part: Part = WHOLE,
) -> Iterator[Tensor]:
    """The packed weight of a linear layer, or of some of its rows, and its bias, if it has one.

    Args:
        weights: of the model.
        layer: its number, or `NO_LAYER`.
        role: role of the weight; the bias has the same with "_bias".
        module: its name in the model.
        dtype: type of a dense weight.
        activation: the activation function after the layer, which the stored layer may already apply.
        part: rows of the module.

    Raises:
        ValueError: a tensor is missing or damaged; the layer applies another activation function.
    """
    check_name(weights, f"{module}.weight")
    applied = weights.activation(module)
    if applied not in (None, activation):
        raise ValueError(f"layer {module!r} applies {applied!r}, the configuration says {activation!r}")
    packed = weights.packed(module, dtype, part)
    info = runtime.packed_info(packed)
    yield Tensor(layer, role, "packed", info.out_features, info.in_features, np.asarray(packed))
    if f"{module}.bias" in weights.names:
        yield stored_vector(weights, layer, f"{role}_bias", f"{module}.bias", part)


def check_name(weights: Weights, name: str) -> None:
    """Raise ValueError if the weight files lack a tensor."""
    if name not in weights.names:
        raise ValueError(f"the weight files lack {name!r}, which config.json leads to; do they belong together?")
