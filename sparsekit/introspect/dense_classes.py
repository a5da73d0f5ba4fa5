"""Classes of dense linear layers: which compute the same as `nn.Linear`, and how to create one."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

#: Buffer that a rounded layer may have in addition, see introspect/int4_scales.py.
INT4_SCALES = "int4_scales"
#: Attributes of `nn.Linear` and of `Conv1D`.
_PLAIN = frozenset({*vars(nn.Linear(1, 1, device="meta")), "nf", "nx"})


def is_conv1d_class(cls: type[nn.Module]) -> bool:
    """Whether a class is transformers' `Conv1D` or derived from it; see `is_conv1d`."""
    return any(base.__name__ == "Conv1D" and base.__module__.startswith("transformers.") for base in cls.mro())


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is transformers' `Conv1D`: a linear layer with a transposed weight, [in_features, out_features].

    The class is recognized by name, so transformers need not be installed.
    """
    return is_conv1d_class(type(module))


def is_dense_linear(module: nn.Module) -> bool:
    """Whether a module is an `nn.Linear` or a subclass of it, or a `Conv1D`, with a plain weight."""
    if not isinstance(module, nn.Linear) and not is_conv1d(module):
        return False
    weight: Any = module.weight
    if is_lazy(weight):
        return True
    return isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.is_floating_point()


def new_dense(cls: type[nn.Module], in_features: int, out_features: int, bias: bool) -> Any:
    """A dense layer of a class that `why_not_linear` accepts, on meta; a `Conv1D` always has a bias."""
    with torch.device("meta"):
        if is_conv1d_class(cls):
            return cls(out_features, in_features)
        return cls(in_features, out_features, bias=bias)


def _is_made_as_linear(cls: type[nn.Module]) -> bool:
    names = list(inspect.signature(cls.__init__).parameters)
    return names[1:4] == ["in_features", "out_features", "bias"]


def _computes_as_linear(layer: nn.Module) -> bool:
    """Whether a layer's outputs match `nn.Linear` on inputs of several shapes and magnitudes."""
    plain: Any = layer
    for shape, size in (((3,), 1.0), ((2, 2), 1e-3), ((2, 2), 1e3)):
        x = torch.randn(*shape, plain.in_features, generator=torch.Generator().manual_seed(0)) * size
        found, expected = layer(x), F.linear(x, plain.weight, plain.bias)
        if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
            return False
        if not torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * size):
            return False
    return True


@functools.cache
def is_linear_class(cls: type[nn.Module]) -> bool:
    """Whether layers of a class compute `input @ weight.T + bias` and take the constructor arguments of `nn.Linear`.

    True of `nn.Linear` and `Conv1D`. A class that overrides `forward`, such as `FalconLinear`, which adds its bias
    after the product, is tested on small layers.
    """
    if cls is nn.Linear or is_conv1d_class(cls):
        return True
    if not issubclass(cls, nn.Linear) or not _is_made_as_linear(cls):
        return False
    if inspect.getattr_static(cls, "forward") is nn.Linear.forward:
        return True
    try:
        with torch.no_grad(), torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return all(_computes_as_linear(_small(cls, bias)) for bias in (True, False))
    except (AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError):
        return False  # it expects other inputs


def _small(cls: type[nn.Module], bias: bool) -> nn.Module:
    """A small layer of a class, in float32, with weights that are not zero."""
    layer = cls(5, 4, bias=bias).float().eval()
    for parameter in layer.parameters():
        parameter.normal_()
    return layer


def _own_state(layer: nn.Module) -> list[str]:
    """Parameters, buffers, modules and attributes of a layer that `nn.Linear` does not have."""
    usual = {"weight", "bias", "parametrizations", INT4_SCALES}
    tensors = {*layer._parameters, *layer._buffers, *layer._modules} - usual
    return sorted(tensors | {name for name in vars(layer) if name not in _PLAIN and not name.startswith("_")})


def why_not_linear(layer: nn.Module) -> str:
    """Why a `Conv1D`, or a subclass of `nn.Linear`, is not equivalent to it; empty if it is."""
    cls = parametrize.type_before_parametrizations(layer)  # a mask renames the class
    if not is_linear_class(cls):
        return f"a {cls.__name__}, which computes something else than nn.Linear"
    own = _own_state(layer)
    return f"a {cls.__name__} with {', '.join(own)}, which nn.Linear has not" if own else ""
