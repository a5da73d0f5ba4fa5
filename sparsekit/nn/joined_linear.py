"""`JoinedLinear`: several sparse layers with the same input in one module, such as query, key and value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sparsekit.formats import CSR
from sparsekit.nn.sparse_linear import SparseLinear


def _below_each_other(weights: Sequence[CSR]) -> CSR:
    crow = [np.zeros(1, np.int64)]
    for weight in weights:
        crow.append(weight.crow_indices[1:] + crow[-1][-1])
    columns = np.concatenate([weight.col_indices for weight in weights])
    values = np.concatenate([weight.values for weight in weights])
    scales = [weight.scales for weight in weights if weight.scales is not None]
    shape = sum(weight.out_features for weight in weights), weights[0].in_features
    return CSR(np.concatenate(crow), columns, values, shape, np.concatenate(scales) if scales else None)


def _common_layout(layers: Sequence[SparseLinear]) -> str | None:
    """Explicit layout that all layers share; None if they differ or have none."""
    layouts = {layer.chosen_layout for layer in layers}
    return layouts.pop() if len(layouts) == 1 else None


class JoinedLinear(nn.Module):
    """Sparse layers with the same input, such as query, key and value, or gate and up, computed in one call.

    The input is packed once for all layers, and one call splits more evenly over threads than several small ones.

    Args:
        in_features: size of the input's last dimension.
        out_features: sizes of the outputs' last dimensions.
        bias: whether to add a bias.

    A new layer has no nonzeros: use `from_linears`, or load a state dict.

    >>> linears = [nn.Linear(3, 2), nn.Linear(3, 4, bias=False)]
    >>> joined = JoinedLinear.from_linears(linears)
    >>> x = torch.ones(5, 3)
    >>> all(bool(torch.allclose(y, linear(x))) for y, linear in zip(joined(x), linears))
    True
    """

    def __init__(self, in_features: int, out_features: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.out_features = tuple(out_features)
        self.linear = SparseLinear(in_features, sum(self.out_features), bias)

    @classmethod
    def from_linears(cls, linears: Sequence[nn.Linear | SparseLinear]) -> JoinedLinear:
        """Join several layers, dense or sparse, which are not changed.

        An explicit layout that all share is kept. If only some layers have a bias, that of the others is zero.

        Raises:
            TypeError: one is neither `nn.Linear` nor `SparseLinear`.
            ValueError: there are no layers, their `in_features` or `dtype` differ, or one has an activation function.
        """
        sizes = {linear.in_features for linear in linears}
        if len(sizes) != 1:
            raise ValueError(f"joined layers must have the same in_features, got {sorted(sizes) or 'no layer'}")
        sparse = [one if isinstance(one, SparseLinear) else SparseLinear.from_linear(one) for one in linears]
        if any(layer.activation is not None for layer in sparse):
            raise ValueError("joined layers cannot have activation functions; apply them to the outputs")
        dtypes = {layer.dtype for layer in sparse}
        if len(dtypes) != 1:
            raise ValueError(f"joined layers must have the same dtype, got {', '.join(sorted(dtypes))}")
        joined = cls(sizes.pop(), [layer.out_features for layer in sparse], bias=False)
        biases = [layer.bias for layer in sparse]
        bias = None
        if any(one is not None for one in biases):
            pairs = zip(biases, joined.out_features, strict=True)
            bias = torch.cat([torch.zeros(size) if one is None else one.detach() for one, size in pairs])
        weight = _below_each_other([layer.to_csr() for layer in sparse])
        joined.linear = SparseLinear.from_csr(weight, bias, dtype=weight.dtype, layout=_common_layout(sparse))
        return joined.train(linears[0].training)

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of the layers, in their order: views of one tensor, shapes [..., out_features[i]]."""
        outputs: tuple[torch.Tensor, ...] = self.linear(input).split(self.out_features, -1)
        return outputs

    def extra_repr(self) -> str:
        """Sizes, as `print(model)` shows them."""
        return f"out_features={self.out_features}"
