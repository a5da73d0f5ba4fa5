"""Layer normalization of a sum, on numpy arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.arrays import check_float32, feature_row
from sparsekit.runtime.threads import follow_torch_threads

#: The native operator on raw addresses; see csrc/operators/layer_norm.h.
add_layer_norm_at = _C.add_layer_norm


def add_layer_norm(
    x: NDArray[np.float32],
    added: NDArray[np.float32],
    weight: NDArray[np.float32] | None = None,
    bias: NDArray[np.float32] | None = None,
    eps: float = 1e-5,
) -> NDArray[np.float32]:
    """Layer normalization of a sum over the last dimension, `layer_norm(x + added)` in torch.

    Args:
        x: float32, shape [..., features].
        added: float32, the same shape.
        weight: float32, shape [features], multiplied with the result.
        bias: float32, shape [features], added to that.
        eps: added to the variance.

    Returns:
        float32, the shape of `x`.

    Raises:
        TypeError: an array has a wrong type.
        ValueError: a shape does not fit.

    >>> one = np.ones((1, 2), np.float32)
    >>> add_layer_norm(one, np.array([[1.0, 3.0]], np.float32))
    array([[-0.999995,  0.999995]], dtype=float32)
    """
    check_float32("x", x)
    check_float32("added", added)
    if x.ndim == 0 or added.shape != x.shape:
        raise ValueError(f"x and added must have the same shape [..., features], got {x.shape} and {added.shape}")
    features = x.shape[-1]
    x, added = np.ascontiguousarray(x), np.ascontiguousarray(added)
    weight, weight_address = feature_row("weight", weight, features)
    bias, bias_address = feature_row("bias", bias, features)
    result = np.empty_like(x)
    follow_torch_threads()
    add_layer_norm_at(
        x.ctypes.data,
        added.ctypes.data,
        result.ctypes.data,
        math.prod(x.shape[:-1]),
        features,
        weight_address,
        bias_address,
        eps,
    )
    return result
