"""Types of arrays, by the names that files give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Types of arrays by their names in safetensors, as numpy reads them; it has no bfloat16 and reads bits.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}

#: Types of a stored weight -> type of the array `values`.
WEIGHT_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "I8"}


def weight_dtype(dtype: Any) -> str:
    """Name of a type of stored weights, given by its name or as a torch dtype.

    Raises:
        ValueError: no weight is stored in it.

    >>> weight_dtype("int8")
    'int8'
    """
    name = str(dtype).removeprefix("torch.")
    if name not in WEIGHT_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(WEIGHT_DTYPES)}, got {dtype!r}")
    return name
