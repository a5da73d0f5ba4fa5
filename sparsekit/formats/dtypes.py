"""Data types: one table of what torch, safetensors, ONNX and numpy call them. Needs no torch until it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class DType(NamedTuple):
    """A type of numbers.

    >>> BY_SAFETENSORS["BF16"].name, BY_NAME["bfloat16"].nbytes
    ('bfloat16', 2)
    """

    name: str  # as torch has it
    safetensors: str
    onnx: int  # of `TensorProto.DataType`
    numpy: np.dtype[Any]  # it has no bfloat16 and reads the bits

    @property
    def nbytes(self) -> int:
        """Bytes of a number."""
        return self.numpy.itemsize

    def float32(self, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Numbers of this type as float32, from their bytes.

        Raises:
            TypeError: it is no type of floats.
        """
        numbers = raw.view(self.numpy)
        if self.name == "bfloat16":
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        if self.numpy.kind != "f":
            raise TypeError(f"expected floats, got {self.name}")
        return numbers.astype(np.float32, copy=False)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type in torch."""
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
#: Two in a byte of a file; one in a byte of an array.
INT4 = DType("int4", "U8", 22, np.dtype("i1"))
BY_NAME: Mapping[str, DType] = {dtype.name: dtype for dtype in (*DTYPES, INT4)}
BY_SAFETENSORS: Mapping[str, DType] = {dtype.safetensors: dtype for dtype in DTYPES}
BY_ONNX: Mapping[int, DType] = {dtype.onnx: dtype for dtype in DTYPES}

#: Types of float weights, and of the inputs of layers.
FLOATS = ("float32", "bfloat16", "float16")
#: Types of stored weights.
WEIGHT_DTYPES = (*FLOATS, "int8", "int4")


def dtype_name(dtype: str | torch.dtype) -> str:
    """Name of a type, given by its name or as a torch dtype."""
    return str(dtype).removeprefix("torch.")


def weight_dtype(dtype: str | torch.dtype) -> str:
    """Name of a type of stored weights, given by its name or as a torch dtype.

    Raises:
        ValueError: no weight is stored in it.

    >>> weight_dtype("int8")
    'int8'
    """
    name = dtype_name(dtype)
    if name not in WEIGHT_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(WEIGHT_DTYPES)}, got {dtype!r}")
    return name
