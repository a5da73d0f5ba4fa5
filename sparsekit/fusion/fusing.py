"""Let sparse layers apply the activation function that follows them, while the result is in cache.

Which function follows which layer is read from the model's own code: the call that hands a layer's result straight to
an activation function is recompiled (`rewriting`) to ask the layer for both. All other uses of the two stay as they
are, whoever's they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from sparsekit.fusion.call_parts import SUM, Pair
from sparsekit.fusion.chunking import forget_signatures, keep_signatures
from sparsekit.fusion.fused_linear import FusedActivation, FusedLinear, FusedSequential
from sparsekit.fusion.joining import join_layers, separate_layers
from sparsekit.fusion.norms import fuse_norms, split_norms
from sparsekit.fusion.rewriting import Recompiled, hand_parts, pairs_of
from sparsekit.introspect.hooks import attached
from sparsekit.nn import SparseLinear
from sparsekit.nn.attention import leave_attention, use_attention

Model = TypeVar("Model", bound=nn.Module)

#: Where modules come from that may be tried out to see which function they are.
_KNOWN_MODULES = ("torch.nn.modules.activation", "transformers.activations")
_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def recognise(module: nn.Module) -> str | None:
    """Name of the fused activation function that computes the same as `module`, if there is one.

    The module is tried on numbers from -10,000 to 10,000.
    """
    if isinstance(module, FusedActivation):
        return module.name
    if type(module).__module__ not in _KNOWN_MODULES or any(True for _ in module.parameters()) or attached(module):
        return None
    probe = torch.cat([torch.linspace(-8, 8, 1602), torch.tensor([-1e4, -100.0, 100.0, 1e4])])
    with torch.inference_mode():
        found = module(probe.clone())  # which it may write to
        for name, function in _FUNCTIONS.items():
            expected = function(probe)
            if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-6):
                return name
    return None


def _candidates(parent: nn.Module) -> list[Pair]:
    """Names of modules that get another's result, and whose, as far as the parent's code says."""
    if type(parent) in (nn.Sequential, FusedSequential):
        return [(second, first) for first, second in itertools.pairwise(parent._modules)]
    if "forward" in vars(parent):
        return []
    return sorted(pair for pair in pairs_of(parent) if pair[1] != SUM)


def _fusable(parent: nn.Module, chosen: set[SparseLinear]) -> dict[Pair, str]:
    """Pairs of a parent's own modules that can be fused -> name of the activation function."""
    found: dict[Pair, str] = {}
    names: dict[SparseLinear, str] = {}
    for second, first in _candidates(parent):
        layer, following = parent._modules.get(first), parent._modules.get(second)
        if following is None or type(layer) is not SparseLinear or layer not in chosen:
            continue
        name = None if layer.activation or attached(layer) else recognise(following)
        if name is not None and names.setdefault(layer, name) == name:
            found[second, first] = name
    return found


def _take_pairs(parent: nn.Module, pairs: dict[Pair, str]) -> int:
    """Fuse these pairs of a parent's own modules. Returns how many layers."""
    if type(parent) is nn.Sequential:
        parent.__class__ = FusedSequential
    elif type(parent) is not FusedSequential:
        hand_parts(parent, frozenset(pairs))
    for (second, first), name in pairs.items():
        module, layer = parent.get_submodule(second), parent.get_submodule(first)
        if not isinstance(module, FusedActivation):
            setattr(parent, second, FusedActivation(module, name))
        layer.__class__, layer.activation = FusedLinear, name  # type: ignore[assignment]
    return len({first for _, first in pairs})


def fuse_activations(model: nn.Module, layers: Iterable[SparseLinear] | None = None) -> int:
    """Have sparse layers apply the activation functions that follow them, in place. Returns how many.

    The classes of the modules that call them become subclasses of the same name whose methods are recompiled.

    Args:
        model: the model.
        layers: which layers of it; None for all.
    """
    chosen = {layer for layer in (model.modules() if layers is None else layers) if isinstance(layer, SparseLinear)}
    parents = [module for module in model.modules() if not chosen.isdisjoint(module.children())]
    return sum(_take_pairs(parent, pairs) for parent in parents if (pairs := _fusable(parent, chosen)))


def split_activations(model: nn.Module) -> None:
    """Undo `fuse_activations`, in place."""
    for parent in list(model.modules()):
        if type(parent) is FusedSequential:
            parent.__class__ = nn.Sequential  # type: ignore[assignment]
        elif type(parent) is FusedLinear:
            vars(parent).pop("activated", None)  # of layers that were joined
            parent.__class__, parent.activation = SparseLinear, None  # type: ignore[assignment]
        elif isinstance(parent, Recompiled):
            hand_parts(parent, frozenset(), frozenset(pair for pair in parent.pairs if pair[1] != SUM))
        for name, child in list(parent._modules.items()):
            if isinstance(child, FusedActivation):
                setattr(parent, name, child.original)


def fuse(model: Model) -> Model:
    """Have a converted model take fewer steps for the same, in place.

    Sparse layers that read the same input (query, key and value; gate and up) pack it once and are computed together,
    layer norms add the residual that they normalise, activation functions are computed by the layers before them, and
    a transformers model computes its attention with the kernels of this package (`use_attention`). What to fuse is
    found in the model's code; weights, names and state dicts stay as they are. It is for inference on the CPU: run the
    model under `torch.no_grad()` or `torch.inference_mode()`. With gradients, in other types, and compiled,
    everything is computed as before. `unfuse` undoes it.

    Args:
        model: a model whose layers `convert` has made sparse; any PyTorch model.

    Returns:
        The model.

    >>> encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    >>> x = torch.randn(1, 3, 8)
    >>> expected = encoder(x)
    >>> with torch.inference_mode():
    ...     bool(torch.allclose(fuse(encoder)(x), expected, atol=1e-5))
    True
    """
    with suppress(ModuleNotFoundError, TypeError, ValueError):  # no transformers model, or one with its own attention
        use_attention(model)
    fuse_activations(model)
    fuse_norms(model)
    join_layers(model)
    keep_signatures(model)
    return model


def unfuse(model: Model) -> Model:
    """Undo `fuse`, in place; attention becomes what it was before. Returns the model."""
    forget_signatures(model)
    separate_layers(model)
    split_norms(model)
    split_activations(model)
    leave_attention(model)
    return model
