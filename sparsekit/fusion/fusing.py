"""Fuse operators of a converted model for inference, and undo it: `fuse` and `unfuse`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

from torch import nn

from sparsekit.fusion.activations import fuse_activations, split_activations
from sparsekit.fusion.chunking import forget_signatures, keep_signatures
from sparsekit.fusion.fused_linear import FusedLinear
from sparsekit.fusion.joining import join_layers, separate_layers
from sparsekit.fusion.norms import fuse_norms, split_norms
from sparsekit.nn.attention import leave_attention, use_attention, uses_attention

Model = TypeVar("Model", bound=nn.Module)

#: Marks a module that `fuse`, not `convert` or the user, changed. An attribute, so that copies and pickles keep it.
_BY_FUSE = "_changed_by_fuse"


def _mark(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        setattr(module, _BY_FUSE, True)


def _take_marked(model: nn.Module) -> list[nn.Module]:
    """The modules that `fuse` changed; removes their mark."""
    return [module for module in model.modules() if vars(module).pop(_BY_FUSE, False)]


def _fuse_attention(model: nn.Module) -> None:
    before = {module for module in model.modules() if uses_attention(module)}
    with suppress(ModuleNotFoundError, TypeError, ValueError):  # no transformers model, or one with its own attention
        use_attention(model)
    _mark({module for module in model.modules() if uses_attention(module)} - before)


def _fuse_activations(model: nn.Module) -> None:
    before = {module for module in model.modules() if type(module) is FusedLinear}
    fuse_activations(model)
    _mark({module for module in model.modules() if type(module) is FusedLinear} - before)


def fuse(model: Model) -> Model:
    """Fuse operators of a converted model, in place.

    Sparse layers that read the same input (query, key and value; gate and up) are computed as one layer, layer norms
    add their residual, activation functions are fused into the layers before them, and a transformers model runs
    attention on this package's kernels (`use_attention`). What to fuse is read from the model's code; weights, names
    and state dicts do not change. Fusion is for inference on the CPU, under `torch.no_grad()` or
    `torch.inference_mode()`: with gradients, in other dtypes, or compiled, the model runs unfused. `unfuse` undoes it.

    Args:
        model: a model whose layers `convert` has made sparse; any PyTorch model.

    Returns:
        The model.

    >>> import torch
    >>> encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    >>> x = torch.randn(1, 3, 8)
    >>> expected = encoder(x)
    >>> with torch.inference_mode():
    ...     bool(torch.allclose(fuse(encoder)(x), expected, atol=1e-5))
    True
    """
    _fuse_attention(model)
    _fuse_activations(model)
    fuse_norms(model)
    join_layers(model)
    keep_signatures(model)
    return model


def unfuse(model: Model) -> Model:
    """Undo `fuse`, in place, but keep what `convert` fused and the user's own `use_attention`.

    Returns:
        The model.
    """
    forget_signatures(model)
    separate_layers(model)
    split_norms(model)
    marked = _take_marked(model)
    split_activations(model, marked)
    leave_attention(model, marked)
    return model
