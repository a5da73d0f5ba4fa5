"""Remove features of a dense layer: `nn.Linear`, or transformers' `Conv1D`, whose weight is transposed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.introspect.dense_classes import is_conv1d
from sparsekit.introspect.selection import shared_weights

#: Attributes in which each kind of layer stores its numbers of outputs and inputs.
_LINEAR_SIZES = ("out_features", "in_features")
_CONV1D_SIZES = ("nf", "nx")


def is_dense(layer: nn.Module) -> bool:
    """Whether a module is an `nn.Linear` or a `Conv1D`, whose features can be removed."""
    return isinstance(layer, nn.Linear) or is_conv1d(layer)


def shape_of(layer: Any) -> tuple[int, int]:
    """Numbers of output and input features of a dense layer."""
    rows, columns = layer.weight.shape
    return (columns, rows) if is_conv1d(layer) else (rows, columns)


def size_names(layer: nn.Module) -> tuple[str, str]:
    """Attributes in which a dense layer stores its numbers of outputs and inputs."""
    return _CONV1D_SIZES if is_conv1d(layer) else _LINEAR_SIZES


def _check_narrowable(name: str, layer: nn.Module) -> None:
    if parametrize.is_parametrized(layer):
        raise ValueError(f"{name} is masked or otherwise parametrized; call finalize(model) before removing features")
    if not is_dense(layer):
        raise TypeError(
            f"{name} must be a torch.nn.Linear or a transformers Conv1D, got {type(layer).__name__}; undo what "
            "replaced it (densify, merge adapters, do not quantize yet), or put it into ignore"
        )
    weight = layer._parameters.get("weight")
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        found = "none" if weight is None else f"a {type(weight).__name__} of {weight.dtype}"
        raise ValueError(f"{name}.weight must be a plain floating parameter, got {found}; remove features before that")


def check_layers(model: nn.Module, layers: Iterable[str]) -> None:
    """Refuse layers whose features cannot be removed.

    Raises:
        TypeError: a module is not a dense layer.
        ValueError: the model has no such module, or its weight is masked or otherwise parametrized, quantized, or
            shared with another module.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    shared = shared_weights(model)
    for name in layers:
        if name not in modules:
            raise ValueError(f"the model has no module {name!r}; give names as model.named_modules() has them")
        _check_narrowable(name, modules[name])
        if name in shared:
            raise ValueError(f"{name}.weight is shared with {', '.join(shared[name])}; put {name!r} into ignore")


def _taken(parameter: nn.Parameter, kept: torch.Tensor, dim: int) -> nn.Parameter:
    chosen = parameter.detach().index_select(dim, kept.to(parameter.device))
    return nn.Parameter(chosen, requires_grad=parameter.requires_grad)


def _keep(layer: Any, kept: torch.Tensor, *, outputs: bool) -> None:
    layer.weight = _taken(layer.weight, kept, 1 if outputs is is_conv1d(layer) else 0)
    setattr(layer, size_names(layer)[0 if outputs else 1], len(kept))


def keep_outputs(layer: Any, kept: torch.Tensor) -> None:
    """Keep only some outputs of a dense layer, in place: the same module gets new, smaller parameters.

    Args:
        layer: an `nn.Linear` or `Conv1D`.
        kept: indices of the outputs to keep, int64.
    """
    _keep(layer, kept, outputs=True)
    if layer.bias is not None:
        layer.bias = _taken(layer.bias, kept, 0)


def keep_inputs(layer: Any, kept: torch.Tensor) -> None:
    """Keep only some inputs of a dense layer, in place; see `keep_outputs`."""
    _keep(layer, kept, outputs=False)


def keep_elements(module: nn.Module, key: str, kept: torch.Tensor) -> None:
    """Keep only some elements of a module's 1-D parameter, in place; see `keep_outputs`."""
    setattr(module, key, _taken(module.get_parameter(key), kept, 0))


def keep_columns(table: Any, kept: torch.Tensor) -> None:
    """Keep only some columns of an `nn.Embedding`, in place; see `keep_outputs`."""
    table.weight = _taken(table.weight, kept, 1)
    table.embedding_dim = len(kept)
