"""The problem of the layer benchmark: a weight, and a call of a linear layer with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.formats import CSR

Floats: TypeAlias = NDArray[np.float32]


class Weight:
    """A weight `[out_features, in_features]`, dense with zeros, as CSR and packed."""

    def __init__(self, dense: Floats, block: str = "1x1") -> None:
        self.dense = dense
        self.csr = CSR.from_dense(dense)
        self.block = block
        self._packed: dict[str, runtime.Packed] = {}

    def packed(self, dtype: str) -> runtime.Packed:
        """The weight packed in this type; cached."""
        if dtype not in self._packed:
            self._packed[dtype] = self.csr.pack(dtype, block=self.block)
        return self._packed[dtype]


@dataclass(frozen=True)
class Problem:
    """One call of a linear layer."""

    weight: Weight
    bias: Floats  # [out_features]
    x: Floats  # [batch, in_features]
    threads: int
    result: Floats = field(init=False)  # [batch, out_features], output buffer for engines that can bind one

    def __post_init__(self) -> None:
        object.__setattr__(self, "result", np.empty((self.x.shape[0], self.bias.size), np.float32))


Call: TypeAlias = Callable[[], Any]
