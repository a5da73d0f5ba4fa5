"""Which speedups are plausible: bounded by operations and bytes, and consistent with those of similar layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import nn

from sparsekit.nn import SparseLinear
from sparsekit.pruning.layers import weight_of

#: Two measurements of the same agree when neither is more than this many times the other.
_AGREEMENT = 1.25
#: Layers of one shape whose sparsity, in percent, falls into the same steps of this width look alike.
_STEP = 5
#: Products that an instruction on whole numbers of 8 bits does for one on floats, by type of weight.
_PRODUCTS = {"int8": 4, "int4": 4}
#: How many times better than the dense kernel's may be what a sparse one makes of the processor.
_EFFICIENCY = 2.0
#: Shapes with up to this many times more or fewer weights are neighbors, and how many times their gains may differ.
_NEAR_SHAPE, _SHAPE_SPREAD = 4.0, 2.0


@dataclass(frozen=True)
class Kind:
    """What a layer's time depends on."""

    out_features: int
    in_features: int
    dense_dtype: torch.dtype
    bias: bool
    step: int  # of its sparsity
    dtype: str  # of the sparse weight
    block: str = ""  # known once the weight is packed

    @classmethod
    def of(cls, dense: nn.Module, dtype: str) -> Kind:
        """Of a layer to be stored in this type."""
        weight = weight_of(dense)
        sparsity = 1.0 - weight.count_nonzero().item() / max(1, weight.numel())
        step = int(100 * sparsity) // _STEP
        return cls(weight.shape[0], weight.shape[1], weight.dtype, dense.bias is not None, step, dtype)

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.out_features * self.in_features


def agree(one: float, other: float) -> bool:
    """Whether two measurements of the same gain are the same but for noise."""
    return max(one, other) <= _AGREEMENT * min(one, other)


def _most(kind: Kind, sparse: SparseLinear) -> float:
    """Upper bound of the speedup: by multiplications or by bytes, whichever allows more."""
    products = kind.size / max(1, sparse.nnz) * _PRODUCTS.get(sparse.dtype, 1)
    return _EFFICIENCY * max(products, kind.size * kind.dense_dtype.itemsize / sparse.packed.nbytes)


def _fits_sparser(gain: float, kind: Kind, others: Mapping[Kind, float]) -> bool:
    """Whether layers of the same shape gain no more with fewer zeros and no less with more."""
    alike = {other.step: found for other, found in others.items() if replace(other, step=kind.step) == kind}
    denser = [found for step, found in alike.items() if step < kind.step]
    sparser = [found for step, found in alike.items() if step > kind.step]
    return gain * _AGREEMENT >= max(denser, default=0.0) and gain <= _AGREEMENT * min(sparser, default=float("inf"))


def _fits_shapes(gain: float, kind: Kind, others: Mapping[Kind, float]) -> bool:
    """Whether layers of the same sparsity and about the same size gain about as much."""
    near = [
        found
        for other, found in others.items()
        if replace(other, out_features=kind.out_features, in_features=kind.in_features) == kind
        and max(other.size, kind.size) <= _NEAR_SHAPE * min(other.size, kind.size)
    ]
    return not near or max(gain, median(near)) <= _SHAPE_SPREAD * min(gain, median(near))


def is_plausible(gain: float, kind: Kind, sparse: SparseLinear, others: Mapping[Kind, float]) -> bool:
    """Whether a measured speedup is plausible.

    Args:
        gain: how many times faster the sparse layer is.
        kind: the layer's.
        sparse: the sparse layer.
        others: gains of other kinds of layers, with as many tokens.
    """
    return gain <= _most(kind, sparse) and _fits_sparser(gain, kind, others) and _fits_shapes(gain, kind, others)
