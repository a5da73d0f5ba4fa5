"""Convert embedding tables to tensors of a compiled model."""

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
    """Read a two-dimensional tensor.

    Args:
        weights: of the model.
        name: name of the tensor.
        columns: required number of columns; None for any.

    Raises:
        ValueError: it is missing, damaged or has another shape.
    """
    check_name(weights, name)
    values = weights.floats(name)
    if values.ndim != 2:
        raise ValueError(f"{name!r} must have two dimensions, got shape {list(values.shape)}")
    _check_columns(name, values.shape[1], columns)
    return values


def table_tensor(weights: Weights, role: str, module: str, dtype: str | None, columns: int | None = None) -> Tensor:
    """Embeddings that are only looked up, not tied to a head.

    Args:
        weights: of the model.
        role: of the tensor.
        module: its name in the model.
        dtype: "float32", "int8" or "int4"; None for the stored type, with 16-bit floats as float32.
        columns: required number of columns; None for any.

    Raises:
        ValueError: they are missing, damaged or have another shape, or are not finite and cannot be quantized.
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
    """Word embeddings shared with the head: one packed dense weight serves lookup and product.

    Args:
        weights: of the model.
        role: of the tensor.
        module: its name in the model.
        dtype: "float32", "int8" or "int4"; None for float32.
        columns: required number of columns; None for any.

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
