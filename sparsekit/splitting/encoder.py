"""`nn.TransformerEncoder` with sparse layers: the same outputs for padded inputs as with dense layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class PaddedEncoder(nn.TransformerEncoder):
    """`nn.TransformerEncoder` that never passes nested tensors to its layers, since sparse layers do not support them.

    Where the dense encoder would have used nested tensors, it returned zeros for padding (normalized, if it has a final
    norm); so does this one.
    """

    #: Read by `nn.TransformerEncoder.forward`; shadows the instance attribute, which keeps the dense encoder's value.
    @property
    def use_nested_tensor(self) -> bool:  # type: ignore[override]
        """Always False."""
        return False

    def forward(
        self,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        """As `nn.TransformerEncoder.forward`."""
        output = super().forward(src, mask, src_key_padding_mask, is_causal)
        if mask is not None or src_key_padding_mask is None or not self._nests(src, src_key_padding_mask):
            return output
        zero = src.new_zeros(src.shape[-1])
        empty = zero if self.norm is None else self.norm(zero)
        return torch.where(_is_padding(src_key_padding_mask)[..., None], empty, output)

    def _nests(self, src: torch.Tensor, padding: torch.Tensor) -> bool:
        """Whether the dense encoder would have turned its input into a nested tensor."""
        first: Any = self.layers[0]
        plain = torch.backends.mha.get_fastpath_enabled() and vars(self).get("use_nested_tensor", False)
        if not plain or first.training or src.dim() != 3 or torch.is_autocast_enabled():
            return False
        if torch.is_grad_enabled() and (src.requires_grad or any(one.requires_grad for one in first.parameters())):
            return False
        if not self.mask_check:
            return True
        left = F.pad(~_is_padding(padding), (1, 0), value=True)
        return not torch.compiler.is_compiling() and not bool((left[:, 1:] & ~left[:, :-1]).any())


def _is_padding(mask: torch.Tensor) -> torch.Tensor:
    return mask if mask.dtype == torch.bool else mask != 0


def pad_plain_encoders(model: nn.Module, kind: type[nn.Module]) -> list[nn.TransformerEncoder]:
    """Turn every `nn.TransformerEncoder` that contains a module of this kind into a `PaddedEncoder`; return those."""
    plain = [encoder for encoder in model.modules() if type(encoder) is nn.TransformerEncoder]
    found = [encoder for encoder in plain if any(isinstance(module, kind) for module in encoder.modules())]
    for encoder in found:
        encoder.__class__ = PaddedEncoder
    return found


def pad_encoders(model: nn.Module, *sparse: type[nn.Module]) -> None:
    """Make encoders that contain modules of these classes a `PaddedEncoder`, and all others `nn.TransformerEncoder`.

    In place: only the class of the encoder changes.
    """
    for encoder in model.modules():
        if type(encoder) in (nn.TransformerEncoder, PaddedEncoder):
            is_sparse = any(isinstance(module, sparse) for module in encoder.modules())
            encoder.__class__ = PaddedEncoder if is_sparse else nn.TransformerEncoder
