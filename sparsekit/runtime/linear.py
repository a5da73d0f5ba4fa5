"""Sparse linear layers on numpy arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_float32
from sparsekit.runtime.checked_weights import checked_places
from sparsekit.runtime.packed import Packed, check_packed, packed_info
from sparsekit.runtime.threads import follow_torch_threads

#: The native operators on raw addresses, for callers with other array types; see csrc/operators/sparse_linear.h.
linear_at = _C.linear
linear_input_gradient_at = _C.linear_input_gradient
joined_linear_at = _C.joined_linear

#: Fused activation functions by name, as torch computes them; "gelu" is the erf form.
ACTIVATIONS: dict[str, int] = {name: kind.value for name, kind in _C.Activation.__members__.items()}


def activation_code(name: str | None) -> int:
    """Code of a fused activation function for the native core.

    Raises:
        ValueError: `name` is not one of `ACTIVATIONS`.
    """
    code = ACTIVATIONS.get("none" if name is None else name)
    if code is None:
        raise ValueError(f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return code


def linear(
    x: NDArray[np.float32],
    packed: Packed,
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
) -> NDArray[np.float32]:
    """Sparse linear layer `activation(x @ weight.T + bias)`.

    Weights that are not stored are skipped, so infinities and NaN of `x` in their columns do not reach the result.

    Args:
        x: float32, shape [..., in_features].
        packed: the weight, from `CSR.pack`.
        bias: float32, shape [out_features].
        activation: a name of `ACTIVATIONS`, applied to the result.

    Returns:
        float32, shape [..., out_features].

    Raises:
        TypeError: `x` or `bias` is not float32.
        ValueError: a shape does not fit, `packed` is not a packed weight, or it has int8 values and `x` is not finite.

    >>> from sparsekit import CSR
    >>> weight = CSR.from_dense(np.array([[0.0, 2.0], [-1.0, 0.0]], dtype=np.float32))
    >>> linear(np.array([[3.0, 4.0]], dtype=np.float32), weight.pack(), activation="relu")
    array([[8., 0.]], dtype=float32)
    """
    info = packed_info(packed)
    place = packed.ctypes.data
    if checked_places.get(id(packed)) != place:
        check_packed(packed, place, packed.size)
    out_features, in_features = info.out_features, info.in_features
    code = activation_code(activation)
    check_float32("x", x)
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ValueError(f"x must have in_features = {in_features} as its last dimension, got shape {x.shape}")
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), in_features)
    if bias is not None:
        check_float32("bias", bias)
        if bias.shape != (out_features,):
            raise ValueError(f"bias must have shape [out_features] = [{out_features}], got {list(bias.shape)}")
        bias = np.ascontiguousarray(bias)
    result = np.empty((rows.shape[0], out_features), dtype=np.float32)
    follow_torch_threads()
    _C.linear(
        place,
        packed.size,
        rows.ctypes.data,
        in_features,
        in_features,
        rows.shape[0],
        result.ctypes.data,
        out_features,
        0 if bias is None else bias.ctypes.data,
        code,
    )
    return result.reshape(*x.shape[:-1], out_features)
