"""Check whether speed-ups are plausible: within bounds by operations and bytes, and consistent with similar layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import nn

from sparsekit.nn import SparseLinear
from sparsekit.pruning.layers import weight_of

#: Largest ratio of two measurements that agree.
_AGREEMENT = 1.25
#: Width of sparsity bins, in percent; layers of one shape in one bin are similar.
_STEP = 5
#: Products per instruction relative to float32, by weight type.
_PRODUCTS = {"int8": 4, "int4": 4}
#: Largest plausible ratio of a sparse kernel's efficiency to the dense kernel's.
_EFFICIENCY = 2.0
#: Largest ratio in size of comparable shapes, and largest plausible ratio of their gains.
_NEAR_SHAPE, _SHAPE_SPREAD = 4.0, 2.0


@dataclass(frozen=True)
class Kind:
    """Properties that a layer's time depends on."""

    out_features: int
    in_features: int
    dense_dtype: torch.dtype
    bias: bool
    step: int  # bin of its sparsity
    dtype: str  # of the sparse weight
    block: str = ""  # known after packing

    @classmethod
    def of(cls, dense: nn.Module, dtype: str) -> Kind:
        """Kind of a layer that is stored in this type."""
        weight = weight_of(dense)
        sparsity = 1.0 - weight.count_nonzero().item() / max(1, weight.numel())
        step = int(100 * sparsity) // _STEP
        return cls(weight.shape[0], weight.shape[1], weight.dtype, dense.bias is not None, step, dtype)

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.out_features * self.in_features


def agree(one: float, other: float) -> bool:
    """Whether two measurements of a gain agree up to noise."""
    return max(one, other) <= _AGREEMENT * min(one, other)


def _most(kind: Kind, sparse: SparseLinear) -> float:
    """Upper bound of the speed-up, by multiplications or by bytes, whichever is larger."""
    products = kind.size / max(1, sparse.nnz) * _PRODUCTS.get(sparse.dtype, 1)
    return _EFFICIENCY * max(products, kind.size * kind.dense_dtype.itemsize / sparse.packed.nbytes)


def _fits_sparser(gain: float, kind: Kind, others: Mapping[Kind, float]) -> bool:
    """Whether gains of layers of the same shape rise with sparsity."""
    alike = {other.step: found for other, found in others.items() if replace(other, step=kind.step) == kind}
    denser = [found for step, found in alike.items() if step < kind.step]
    sparser = [found for step, found in alike.items() if step > kind.step]
    return gain * _AGREEMENT >= max(denser, default=0.0) and gain <= _AGREEMENT * min(sparser, default=float("inf"))


def _fits_shapes(gain: float, kind: Kind, others: Mapping[Kind, float]) -> bool:
    """Whether layers of the same sparsity and similar size have similar gains."""
    near = [
        found
        for other, found in others.items()
        if replace(other, out_features=kind.out_features, in_features=kind.in_features) == kind
        and max(other.size, kind.size) <= _NEAR_SHAPE * min(other.size, kind.size)
    ]
    return not near or max(gain, median(near)) <= _SHAPE_SPREAD * min(gain, median(near))


def is_plausible(gain: float, kind: Kind, sparse: SparseLinear, others: Mapping[Kind, float]) -> bool:
    """Whether a measured speed-up is plausible.

    Args:
        gain: speed-up of the sparse layer.
        kind: kind of the layer.
        sparse: the sparse layer.
        others: gains of other kinds of layers for the same number of tokens.
    """
    return gain <= _most(kind, sparse) and _fits_sparser(gain, kind, others) and _fits_shapes(gain, kind, others)
