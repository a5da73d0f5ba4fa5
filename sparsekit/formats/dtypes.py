"""Data types: one table of their names in torch, safetensors, ONNX and numpy. Imports torch only on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class DType(NamedTuple):
    """A data type.

    >>> BY_SAFETENSORS["BF16"].name, BY_NAME["bfloat16"].nbytes
    ('bfloat16', 2)
    """

    name: str  # torch's name
    safetensors: str
    onnx: int  # of `TensorProto.DataType`
    numpy: np.dtype[Any]  # bits for bfloat16, which numpy lacks

    @property
    def nbytes(self) -> int:
        """Bytes per element."""
        return self.numpy.itemsize

    def float32(self, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Convert raw bytes of this type to float32.

        Raises:
            TypeError: it is not a floating-point type.
        """
        numbers = raw.view(self.numpy)
        if self.name == "bfloat16":
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        if self.numpy.kind != "f":
            raise TypeError(f"expected floats, got {self.name}")
        return numbers.astype(np.float32, copy=False)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch dtype."""
        import torch

        found: torch.dtype = getattr(torch, self.name)
        return found


DTYPES = (
    DType("float64", "F64", 11, np.dtype("<f8")),
    DType("float32", "F32", 1, np.dtype("<f4")),
    DType("float16", "F16", 10, np.dtype("<f2")),
    DType("bfloat16", "BF16", 16, np.dtype("<u2")),
    DType("int64", "I64", 7, np.dtype("<i8")),
    DType("int32", "I32", 6, np.dtype("<i4")),
    DType("int16", "I16", 5, np.dtype("<i2")),
    DType("int8", "I8", 3, np.dtype("i1")),
    DType("uint64", "U64", 13, np.dtype("<u8")),
    DType("uint32", "U32", 12, np.dtype("<u4")),
    DType("uint16", "U16", 4, np.dtype("<u2")),
    DType("uint8", "U8", 2, np.dtype("u1")),
    DType("bool", "BOOL", 9, np.dtype("u1")),
)
#: Two values per byte in files, one per byte in arrays.
INT4 = DType("int4", "U8", 22, np.dtype("i1"))
BY_NAME: Mapping[str, DType] = {dtype.name: dtype for dtype in (*DTYPES, INT4)}
BY_SAFETENSORS: Mapping[str, DType] = {dtype.safetensors: dtype for dtype in DTYPES}
BY_ONNX: Mapping[int, DType] = {dtype.onnx: dtype for dtype in DTYPES}

#: Floating-point types of weights, and types of layer inputs.
FLOATS = ("float32", "bfloat16", "float16")
#: Types of stored weights.
WEIGHT_DTYPES = (*FLOATS, "int8", "int4")


def dtype_name(dtype: str | torch.dtype) -> str:
    """Name of a type, from its name or a torch dtype."""
    return str(dtype).removeprefix("torch.")


def weight_dtype(dtype: str | torch.dtype) -> str:
    """Name of a stored weight type, from its name or a torch dtype.

    Raises:
        ValueError: it is not a stored weight type.

    >>> weight_dtype("int8")
    'int8'
    """
    name = dtype_name(dtype)
    if name not in WEIGHT_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(WEIGHT_DTYPES)}, got {dtype!r}")
    return name
