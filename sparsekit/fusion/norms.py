"""`fuse_norms`: add the residual inside layer normalization, in one pass over memory."""

from __future__ import annotations

import torch
from torch import nn

from sparsekit import ops
from sparsekit.fusion.call_parts import SUM
from sparsekit.fusion.rewriting import Recompiled, hand_parts, pairs_of
from sparsekit.introspect.hooks import attached, is_plain_call
from sparsekit.nn.attention import leaves_torch

#: Below this many elements torch's two operators are faster: a call from Python costs 4 microseconds less than ours.
_FEW = 16384


class AddLayerNorm(nn.LayerNorm):
    """Layer normalization of one tensor, or of the sum of two.

    >>> norm = AddLayerNorm(4)
    >>> a, b = torch.randn(3, 4), torch.randn(3, 4)
    >>> with torch.no_grad():
    ...     bool(torch.allclose(norm(a, b), norm(a + b), atol=1e-6))
    True
    """

    def forward(self, input: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """`layer_norm(input + added)`, in one pass for float32 on the CPU without gradients."""
        if added is None:
            return super().forward(input)
        weight, bias = self.weight, self.bias
        if self._fits(input, added) and all(one is None or _is_float(one) for one in (weight, bias)):
            return ops.add_layer_norm(input, added, weight, bias, self.eps)
        return super().forward(input + added)

    def of_sum(self, input: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        """`self(input + added)`, in one pass unless this norm has hooks."""
        if type(self) is AddLayerNorm and is_plain_call(self):
            return self.forward(input, added)
        result: torch.Tensor = self(input + added)
        return result

    def _fits(self, input: torch.Tensor, added: torch.Tensor) -> bool:
        """Whether the kernel can compute this; torch computes the rest."""
        if not (_is_float(input) and _is_float(added)) or input.shape != added.shape:
            return False
        if not torch.compiler.is_compiling() and input.numel() < _FEW:
            return False
        return input.shape[-1:] == self.normalized_shape and not torch.is_grad_enabled() and not leaves_torch()


def _is_float(tensor: object) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.dtype is torch.float32 and tensor.is_cpu


def _norms(module: nn.Module) -> dict[str, nn.LayerNorm]:
    """Plain norms over the last dimension, by name, that the module's code calls with a sum."""
    if "forward" in vars(module) or hasattr(module, "save_pretrained"):
        return {}
    done = module.pairs if isinstance(module, Recompiled) else frozenset()
    named = {name: module._modules.get(name) for name, parts in pairs_of(module) - done if parts == SUM}
    return {name: norm for name, norm in named.items() if isinstance(norm, nn.LayerNorm) and _is_simple(norm)}


def _is_simple(norm: nn.LayerNorm) -> bool:
    """Whether it is a plain `nn.LayerNorm` over the last dimension, without hooks."""
    return type(norm) in (nn.LayerNorm, AddLayerNorm) and len(norm.normalized_shape) == 1 and not attached(norm)


def fuse_norms(model: nn.Module) -> int:
    """Fuse the addition of the residual into layer norms, in place. Returns how many.

    They are found in the model's code: `self.NORM(a + b)`, or `x = a + b` and `x = self.NORM(x)` in the next line. Such
    methods are recompiled to pass both terms, in a subclass that replaces the module's class.
    """
    fused = 0
    for module in list(model.modules()):
        norms = _norms(module)
        if norms:
            hand_parts(module, frozenset((name, SUM) for name in norms))
        for norm in norms.values():
            if type(norm) is nn.LayerNorm:
                norm.__class__, norm._was_plain = AddLayerNorm, True  # type: ignore[assignment]
        fused += len(norms)
    return fused


def split_norms(model: nn.Module) -> None:
    """Undo `fuse_norms`, in place."""
    for module in model.modules():
        if isinstance(module, Recompiled):
            hand_parts(module, frozenset(), frozenset(pair for pair in module.pairs if pair[1] == SUM))
        elif type(module) is AddLayerNorm and vars(module).pop("_was_plain", False):
            module.__class__ = nn.LayerNorm  # type: ignore[assignment]
