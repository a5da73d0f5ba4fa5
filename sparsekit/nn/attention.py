"""`use_attention`: dense attention of transformers models on this package's kernels."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Container
from typing import Any, TypeVar

import torch
from torch import nn

from sparsekit import ops

Model = TypeVar("Model", bound=nn.Module)

#: Name of the implementation in transformers.
_NAME = "sparsekit"

#: Keyword arguments of models that ask for more than plain attention.
_SPECIAL = frozenset({"cache", "output_attentions", "position_bias", "s_aux", "softcap"})

#: Code of models that handle torch's attention differently from all others.
_ASKS_FOR_SDPA = re.compile(r"_attn_implementation\s*(==|!=|in|not in)[^\n]*sdpa")


def leaves_torch() -> bool:
    """Whether the traced program must run without this package."""
    if torch._C._get_tracing_state() is not None:
        return True
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


def _computes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    if any(one.dtype is not torch.float32 or not one.is_cpu or one.dim() != 4 for one in (query, key, value)):
        return False
    (batch, heads, _, features), (key_batch, key_heads, _, key_features) = query.shape, key.shape
    same = batch == key_batch and features == key_features and key.shape[:3] == value.shape[:3]
    return same and heads % key_heads == 0


def _fits(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, special: dict[str, Any]
) -> bool:
    """Whether the kernels support this call; torch computes the others."""
    if not _computes(query, key, value) or leaves_torch():
        return False
    if any(special[name] is not None and special[name] is not False for name in special.keys() & _SPECIAL):
        return False
    if mask is not None and (mask.dtype not in (torch.bool, torch.float32) or mask.requires_grad):
        return False
    recorded = query.requires_grad or key.requires_grad or value.requires_grad
    return not (recorded and torch.is_grad_enabled())


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **special: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function in transformers' interface: tensors [batch, heads, tokens, features].

    Returns:
        Output [batch, queries, heads, features], and None in place of attention weights.
    """
    if dropout > 0 or not _fits(query, key, value, attention_mask, special):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **special
        )
        return found
    queries = query.shape[2]
    wanted = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(wanted) and attention_mask is None and queries > 1
    if causal and key.shape[2] > queries:  # a static cache has room for future keys, which no mask hides
        key, value = key[:, :, :queries], value[:, :, :queries]
    return ops.attention(query, key, value, attention_mask, causal, scaling).transpose(1, 2), None


def _code_of(model: nn.Module) -> str:
    module = sys.modules.get(type(model).__module__)
    try:
        return "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):
        return ""


def _refuse_special(model: nn.Module) -> None:
    """Refuse a model whose code needs more than torch's attention, or handles it differently from all others."""
    name = type(model).__name__
    if not getattr(model, "_supports_sdpa", False):
        raise ValueError(f"{name} needs more of its attention than torch's has, which is what sparsekit computes")
    if _ASKS_FOR_SDPA.search(_code_of(model)):
        raise ValueError(f"the code of {name} treats torch's attention in a way of its own; leave it as it is")


def use_attention(model: Model) -> Model:
    """Compute a transformers model's attention with this package's kernels, in place.

    The kernels are for float32 on the CPU, without gradients: run the model under `torch.no_grad()` or
    `torch.inference_mode()`. torch computes all other calls as before: training with dropout, other types,
    requested attention weights. `leave_attention` undoes it.

    Args:
        model: a transformers model, or a module that contains one.

    Returns:
        The model.

    Raises:
        TypeError: there is no transformers model.
        ValueError: a model cannot take another attention function.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import sdpa_mask

    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not models:
        raise TypeError(f"expected a transformers model, or a module that holds one, got {type(model).__name__}")
    for found in models:
        _refuse_special(found)
    AttentionInterface.register(_NAME, attention_forward)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    for found in models:
        if found.config._attn_implementation != _NAME:
            found._attention_before = found.config._attn_implementation
    for found in models:
        found.set_attn_implementation(_NAME)
        if found.config._attn_implementation != _NAME:
            raise ValueError(f"{type(found).__name__} does not let its attention function be chosen")
    return model


def uses_attention(module: nn.Module) -> bool:
    """Whether a module is a transformers model that computes its attention with this package's kernels."""
    chosen = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return chosen == _NAME and hasattr(module, "set_attn_implementation")


def leave_attention(model: nn.Module, modules: Container[nn.Module] | None = None) -> None:
    """Undo `use_attention`, in place: restore the previous attention, or "sdpa" if it is unknown.

    Args:
        model: the model.
        modules: which modules of it; None for all.
    """
    chosen = [module for module in model.modules() if modules is None or module in modules]
    for module in filter(uses_attention, chosen):  # outer models first, since inner ones may have another setting
        before = vars(module).pop("_attention_before", "sdpa")
        module.set_attn_implementation(before)  # type: ignore[operator]
