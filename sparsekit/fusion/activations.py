"""Fuse activation functions into the sparse layers before them, so that they run while the result is in cache.

The pairs are found in the model's own code: a call that passes a layer's result straight to an activation function is
recompiled (`rewriting`) so that the layer computes both. All other uses of the layer or the function do not change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from sparsekit.fusion.call_parts import SUM, Pair
from sparsekit.fusion.fused_linear import FusedActivation, FusedLinear, FusedSequential
from sparsekit.fusion.rewriting import Recompiled, hand_parts, pairs_of
from sparsekit.introspect.hooks import attached
from sparsekit.nn import SparseLinear

#: Packages whose modules may be run to find out which function they compute.
_KNOWN_MODULES = ("torch.nn.modules.activation", "transformers.activations")
_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def recognize(module: nn.Module) -> str | None:
    """Name of the fused activation function that computes the same as `module`, if there is one.

    The module is run on numbers from -10,000 to 10,000.
    """
    if isinstance(module, FusedActivation):
        return module.name
    if type(module).__module__ not in _KNOWN_MODULES or any(True for _ in module.parameters()) or attached(module):
        return None
    probe = torch.cat([torch.linspace(-8, 8, 1602), torch.tensor([-1e4, -100.0, 100.0, 1e4])])
    with torch.inference_mode():
        found = module(probe.clone())  # a copy, since the module may work in place
        for name, function in _FUNCTIONS.items():
            expected = function(probe)
            if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-6):
                return name
    return None


def _candidates(parent: nn.Module) -> list[Pair]:
    """Pairs (consumer, producer): names of modules whose input is another's result, according to the parent's code."""
    if type(parent) in (nn.Sequential, FusedSequential):
        return [(second, first) for first, second in itertools.pairwise(parent._modules)]
    if "forward" in vars(parent):
        return []
    return sorted(pair for pair in pairs_of(parent) if pair[1] != SUM)


def _fusable(parent: nn.Module, chosen: set[SparseLinear]) -> dict[Pair, str]:
    """Pairs of a parent's children that can be fused -> name of the activation function."""
    found: dict[Pair, str] = {}
    names: dict[SparseLinear, str] = {}
    for second, first in _candidates(parent):
        layer, following = parent._modules.get(first), parent._modules.get(second)
        if following is None or type(layer) is not SparseLinear or layer not in chosen:
            continue
        name = None if layer.activation or attached(layer) else recognize(following)
        if name is not None and names.setdefault(layer, name) == name:
            found[second, first] = name
    return found


def _take_pairs(parent: nn.Module, pairs: dict[Pair, str]) -> int:
    """Fuse these pairs of a parent's children. Returns the number of layers."""
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
    """Fuse activation functions into the sparse layers before them, in place. Returns the number of layers.

    The class of a module that calls them is replaced by a subclass of the same name with recompiled methods.

    Args:
        model: the model.
        layers: which layers of it; None for all.
    """
    chosen = {layer for layer in (model.modules() if layers is None else layers) if isinstance(layer, SparseLinear)}
    parents = [module for module in model.modules() if not chosen.isdisjoint(module.children())]
    return sum(_take_pairs(parent, pairs) for parent in parents if (pairs := _fusable(parent, chosen)))


def _kept_pairs(parent: nn.Module, chosen: Container[nn.Module]) -> frozenset[Pair]:
    """Pairs of a parent's children that stay fused when these layers are unfused."""
    if type(parent) is FusedSequential:
        pairs: Iterable[Pair] = _candidates(parent)
    else:
        pairs = [pair for pair in parent.pairs if pair[1] != SUM] if isinstance(parent, Recompiled) else []
    layers = {pair: parent._modules.get(pair[1]) for pair in pairs}
    return frozenset(pair for pair, layer in layers.items() if type(layer) is FusedLinear and layer not in chosen)


def _split(parent: nn.Module, chosen: Container[nn.Module]) -> None:
    """Restore a parent's separate calls of these layers and of the activation functions after them."""
    kept = _kept_pairs(parent, chosen)
    if type(parent) is FusedSequential and not kept:
        parent.__class__ = nn.Sequential  # type: ignore[assignment]
    elif isinstance(parent, Recompiled):
        hand_parts(parent, frozenset(), frozenset(pair for pair in parent.pairs if pair[1] != SUM) - kept)
    for name, child in list(parent._modules.items()):
        if isinstance(child, FusedActivation) and all(second != name for second, _ in kept):
            setattr(parent, name, child.original)


def split_activations(model: nn.Module, layers: Iterable[nn.Module] | None = None) -> None:
    """Undo `fuse_activations`, in place.

    Args:
        model: the model.
        layers: which layers of it; None for all.
    """
    chosen = {layer for layer in (model.modules() if layers is None else layers) if type(layer) is FusedLinear}
    for parent in list(model.modules()):
        _split(parent, chosen)
    for layer in chosen:
        vars(layer).pop("activated", None)  # set by `join_layers`
        layer.__class__, layer.activation = SparseLinear, None  # type: ignore[assignment]
