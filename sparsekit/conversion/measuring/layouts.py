"""Build a sparse layer in every candidate layout."""

from __future__ import annotations

from torch import nn

from sparsekit.nn import SparseLinear


def in_every_layout(dense: nn.Module, dtype: str) -> dict[str, SparseLinear]:
    """The sparse layer in each candidate layout of this instruction set, the preferred one first.

    Args:
        dense: the dense layer.
        dtype: as in `SparseLinear.from_linear`.

    Raises:
        ValueError: the type cannot hold the weight.
    """
    preferred = SparseLinear.from_linear(dense, dtype=dtype)
    _, *others = preferred.to_csr().layouts(dtype)
    layers = [preferred, *(SparseLinear.from_linear(dense, dtype=dtype, layout=other) for other in others)]
    return {sparse.layout: sparse for sparse in layers}
