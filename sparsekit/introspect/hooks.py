"""Hooks attached to a module, which code that does not call the module would skip."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def attached(module: nn.Module) -> str:
    """Says what is attached to a module: hooks of any kind, or another `forward`; empty where nothing is."""
    own = vars(module)
    if "forward" in own:
        return "its forward was replaced"
    return "it has hooks" if any(value for name, value in own.items() if name.endswith("_hooks")) else ""


def is_plain_call(*modules: nn.Module) -> bool:
    """Whether calling any of these runs its class's `forward` and nothing else; quick enough to ask in every call."""
    for one in modules:
        if one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks:
            return False
        if "forward" in one.__dict__:
            return False
    return not _has_any_global_hook()
