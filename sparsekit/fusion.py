"""Let sparse layers apply the activation function that follows them, while the result is in cache.

Which function follows which layer is read from the model's own code: the method that calls both must hand the layer's
result straight to the activation function, and nothing else of the class may use either.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from sparsekit.attention import leave_attention, use_attention
from sparsekit.chunking import forget_signatures, keep_signatures
from sparsekit.joining import join_layers, separate_layers
from sparsekit.model_code import following
from sparsekit.nn import SparseLinear
from sparsekit.norms import fuse_norms, split_norms

Model = TypeVar("Model", bound=nn.Module)

#: Where modules come from that may be tried out to see which function they are.
_KNOWN_MODULES = ("torch.nn.modules.activation", "transformers.activations")
_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


class FusedActivation(nn.Module):
    """Takes the place of an activation function that the sparse layer before it applies; returns its input.

    Args:
        original: the activation function.
        layer: name of the sparse layer among the modules of the same parent.
    """

    def __init__(self, original: nn.Module, layer: str) -> None:
        super().__init__()
        self.original = original
        self.layer = layer

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input as it is."""
        return input


def recognise(module: nn.Module) -> str | None:
    """Name of the fused activation function that computes the same as `module`, if there is one.

    The module is tried on numbers from -10,000 to 10,000.
    """
    if type(module).__module__ not in _KNOWN_MODULES or any(True for _ in module.parameters()):
        return None
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    probe = torch.cat([torch.linspace(-8, 8, 1602), torch.tensor([-1e4, -100.0, 100.0, 1e4])])
    with torch.inference_mode():
        found = module(probe)
        for name, function in _FUNCTIONS.items():
            expected = function(probe)
            if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-6):
                return name
    return None


def _pairs(parent: nn.Module) -> dict[str, str]:
    if type(parent) is nn.Sequential:
        return dict(itertools.pairwise(name for name, _ in parent.named_children()))
    return following(type(parent))  # type: ignore[arg-type]  # mypy knows no hash of it


def fuse_activations(model: nn.Module, layers: Iterable[SparseLinear] | None = None) -> int:
    """Have sparse layers apply the activation functions that follow them, in place. Returns how many.

    Args:
        model: the model.
        layers: which layers of it; None for all.
    """
    chosen = {layer for layer in (model.modules() if layers is None else layers) if isinstance(layer, SparseLinear)}
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    parents = [module for module in model.modules() if not chosen.isdisjoint(module.children())]
    fused = 0
    for parent in parents:
        children = dict(parent.named_children())
        for first, second in _pairs(parent).items():
            layer, following = children.get(first), children.get(second)
            if not isinstance(layer, SparseLinear) or layer not in chosen or following is None:
                continue
            if layer.activation is not None:
                continue
            name = recognise(following)
            if name is not None and places[id(layer)] == 1 and not layer._forward_hooks:
                layer.activation = name
                setattr(parent, second, FusedActivation(following, first))
                fused += 1
    return fused


def split_activations(model: nn.Module) -> None:
    """Undo `fuse_activations`, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedActivation):
                layer = parent.get_submodule(child.layer)
                if isinstance(layer, SparseLinear):
                    layer.activation = None
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
    """Undo `fuse`, in place; attention becomes torch's, "sdpa". Returns the model."""
    forget_signatures(model)
    separate_layers(model)
    split_norms(model)
    split_activations(model)
    leave_attention(model)
    return model
