"""Classes of dense linear layers: what is the same as `nn.Linear`, and how to make one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from sparsekit.selection import is_conv1d, is_conv1d_class


def new_dense(cls: type[nn.Module], in_features: int, out_features: int, bias: bool) -> Any:
    """A dense layer of a class that `why_not_linear` accepts, on meta; a `Conv1D`'s bias cannot be left out."""
    with torch.device("meta"):
        if is_conv1d_class(cls):
            return cls(out_features, in_features)
        return cls(in_features, out_features, bias=bias)


def _is_made_as_linear(cls: type[nn.Module]) -> bool:
    names = list(inspect.signature(cls.__init__).parameters)
    return names[1:4] == ["in_features", "out_features", "bias"]


def _own_state(layer: nn.Module) -> list[str]:
    """What a layer has that `nn.Linear` has not: parameters, buffers, modules, attributes."""
    tensors = {*layer._parameters, *layer._buffers, *layer._modules} - {"weight", "bias", "parametrizations"}
    plain = {*vars(nn.Linear(1, 1, device="meta")), "nf", "nx"}
    return sorted(tensors | {name for name in vars(layer) if name not in plain and not name.startswith("_")})


@torch.no_grad()
def _computes_as_linear(layer: nn.Linear) -> bool:
    """Whether a layer gives what `nn.Linear` gives on inputs of several shapes and sizes."""
    was_training, generator = layer.training, torch.Generator().manual_seed(0)
    weight, bias = layer.weight, layer.bias
    try:
        layer.train(False)
        for shape, size in (((3,), 1.0), ((2, 2), 1e-3), ((2, 2), 1e3)):
            x = (torch.randn(*shape, layer.in_features, generator=generator) * size).to(weight.dtype)
            found, expected = layer(x), F.linear(x, weight, bias)
            if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
                return False
            tolerance = 8 * torch.finfo(weight.dtype).eps * layer.in_features**0.5
            scale = float(expected.abs().max()) if expected.numel() else 1.0
            if found.dtype != expected.dtype or not torch.allclose(found, expected, tolerance, tolerance * scale):
                return False
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):  # it expects something else
        return False
    finally:
        layer.train(was_training)
    return True


def why_not_linear(layer: Any) -> str:
    """Why a `Conv1D`, or a layer derived from `nn.Linear`, is not the same as one; empty when it is.

    A class with a `forward` of its own is tried out: `FalconLinear` adds its bias after the product.
    """
    cls = parametrize.type_before_parametrizations(layer)  # a mask renames the class
    if cls is nn.Linear or is_conv1d(layer):
        return ""
    if not _is_made_as_linear(cls):
        return f"a {cls.__name__}, which is made of other arguments than nn.Linear"
    own = _own_state(layer)
    if own:
        return f"a {cls.__name__} with {', '.join(own)}, which nn.Linear has not"
    if inspect.getattr_static(cls, "forward") is not nn.Linear.forward and not _computes_as_linear(layer):
        return f"a {cls.__name__}, which computes something else than nn.Linear"
    return ""
