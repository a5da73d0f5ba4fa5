"""Packed weights: self-describing buffers, checked once before kernels use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.runtime.checked_weights import remember

#: A packed weight: a self-describing buffer, created by `CSR.pack`.
Packed: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class PackedInfo:
    """The header of a packed weight."""

    out_features: int
    in_features: int
    nnz: int
    dtype: str  # of the stored weights: "float32", "bfloat16", "float16" or "int8"
    height: int  # rows that share their columns: 1, or 4 in 4x1 blocks
    layout: str  # "sell" (SELL-C-sigma), "csr" (CSR in column blocks), "bitmask" (a bit for each column) or "dense"

    @property
    def block(self) -> str:
        """Shape of the blocks that the kernels use: "1x1" or "4x1"."""
        return f"{self.height}x1"


def check_packed(holder: Any, place: int, nbytes: int) -> None:
    """Validate the packed weight of an array or tensor, once: see `checked_weights`.

    Raises:
        ValueError: it is not a packed weight, or is damaged.
    """
    _C.check_packed(place, nbytes)
    remember(holder, place)


def packed_info(packed: Packed) -> PackedInfo:
    """Read the header of a packed weight.

    Raises:
        ValueError: the buffer is not a packed weight.
    """
    return PackedInfo(*_C.packed_info(packed))
