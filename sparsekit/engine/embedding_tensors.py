"""Tables of embeddings as tensors of a compiled model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.compiled_file import NO_LAYER, Tensor
from sparsekit.engine.linear_tensors import check_name
from sparsekit.engine.weights import Weights
from sparsekit.formats import CSR
from sparsekit.formats.quantization import quantize_rows


def matrix(weights: Weights, name: str, columns: int | None = None) -> NDArray[np.float32]:
    """A tensor of two dimensions.

    Args:
        weights: of the model.
        name: of the tensor.
        columns: that it must have; None for any number.

    Raises:
        ValueError: it is missing or damaged, or has another shape.
    """
    check_name(weights, name)
    values = weights.floats(name)
    if values.ndim != 2:
        raise ValueError(f"{name!r} must have two dimensions, got shape {list(values.shape)}")
    _check_columns(name, values.shape[1], columns)
    return values


def table_tensor(weights: Weights, role: str, module: str, dtype: str | None, columns: int | None = None) -> Tensor:
    """Embeddings that are only looked up.

    Args:
        weights: of the model.
        role: of the tensor.
        module: its name in the model.
        dtype: "float32", "int8" or "int4"; None for the type in which they are stored, 16 bits as float32.
        columns: that they must have; None for any number.

    Raises:
        ValueError: they are missing or damaged, or have another shape; they are not finite and are to be int8 or int4.
    """
    name = f"{module}.weight"
    check_name(weights, name)
    if dtype == "int4":
        return tied_tensor(weights, role, module, dtype, columns)
    stored = weights.quantized(module)
    if stored is not None and dtype != "float32":
        _check_columns(name, stored[0].shape[1], columns)
        return Tensor.of_scaled_rows(NO_LAYER, role, *stored)
    values = matrix(weights, name, columns)
    if dtype == "int8":
        return Tensor.of_scaled_rows(NO_LAYER, role, *_quantized(name, values))
    return Tensor.of_floats(NO_LAYER, role, values)


def tied_tensor(weights: Weights, role: str, module: str, dtype: str | None, columns: int | None) -> Tensor:
    """Embeddings that are looked up, and that the head of the model multiplies with: packed, with all zeros.

    Args:
        weights: of the model.
        role: of the tensor.
        module: its name in the model.
        dtype: "float32", "int8" or "int4"; None for float32.
        columns: that they must have; None for any number.

    Raises:
        ValueError: as `table_tensor`.
    """
    name = f"{module}.weight"
    values = matrix(weights, name, columns)
    try:
        packed = CSR.from_dense(values).pack(dtype or "float32", layout="dense")
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error
    info = runtime.packed_info(packed)
    return Tensor(NO_LAYER, role, "packed", info.out_features, info.in_features, np.asarray(packed))


def _check_columns(name: str, found: int, expected: int | None) -> None:
    if expected not in (None, found):
        raise ValueError(f"{name!r} must have {expected} columns, as config.json says, got {found}")


def _quantized(name: str, values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    try:
        return quantize_rows(values)
    except ValueError as error:
        raise ValueError(f"{name!r} {error}") from error
