"""Weight matrices outside the selected layers, and the sparse fraction of the model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from sparsekit.introspect.dense_classes import is_dense_linear, why_not_linear
from sparsekit.nn import Int8Embedding, SparseLinear

#: Unpruned matrices with a smaller fraction of the model's weights are not reported.
_ZEROS, _SHARE = 0.05, 0.005


@dataclass(frozen=True)
class UnreachedWeight:
    """Dense matrices outside the selected layers whose names differ only in numbers."""

    name: str  # with a star for each differing number
    count: int
    shape: tuple[int, ...]  # of each
    share: float  # fraction of the model's weights
    sparsity: float  # of all of them together
    reason: str


def count_weights(model: nn.Module) -> tuple[int, int]:
    """Number of weights in sparse layers, zeros included, and in the whole model."""
    layers = [module for module in model.modules() if isinstance(module, SparseLinear)]
    sparse = sum(layer.in_features * layer.out_features for layer in layers)
    tables = sum(table.codes.numel() for table in model.modules() if isinstance(table, Int8Embedding))
    dense = sum(parameter.numel() for parameter in model.parameters() if not is_lazy(parameter))
    return sparse, sparse + tables + dense


def _why(module: nn.Module, name: str) -> str:
    if is_dense_linear(module):
        return why_not_linear(module) or "targets and ignore leave it out"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "a convolution"
    if isinstance(module, parametrize.ParametrizationList):
        return "a weight is computed from it"
    return f"a parameter that {type(module).__name__} computes with itself"


def _matrices(model: nn.Module, reported: Iterable[str]) -> Iterator[tuple[str, torch.Tensor, str]]:
    """Name, values and reason of every unreported matrix that is not an embedding."""
    known = set(reported)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None or is_lazy(parameter) or parameter.dim() < 2:
                continue
            if id(parameter) in embeddings or path in known:
                continue
            yield (path if name == "weight" else f"{path}.{name}".lstrip(".")), parameter.detach(), _why(module, name)


def unreached_weights(model: nn.Module, reported: Iterable[str]) -> tuple[UnreachedWeight, ...]:
    """Matrices outside the reported layers that are pruned or hold much of the model.

    Args:
        model: a converted model.
        reported: names of the reported layers.
    """
    _, weights = count_weights(model)
    groups: dict[tuple[str, tuple[int, ...], str], list[tuple[str, int]]] = {}
    for name, values, reason in _matrices(model, reported):
        key = re.sub(r"\d+", "*", name), tuple(values.shape), reason
        zeros = 0 if values.is_meta else values.numel() - int(values.count_nonzero())
        groups.setdefault(key, []).append((name, zeros))
    found = []
    for (pattern, shape, reason), members in groups.items():
        size, zeros = len(members) * math.prod(shape), sum(count for _, count in members)
        name = members[0][0] if len(members) == 1 else pattern
        if size and (zeros / size >= _ZEROS or size / weights >= _SHARE):
            found.append(UnreachedWeight(name, len(members), shape, size / weights, zeros / size, reason))
    return tuple(found)
