"""Hooks attached to a module, which would be skipped by code that bypasses the module's call."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def attached(module: nn.Module) -> str:
    """What is attached to a module, for messages: hooks of any kind, or a replaced `forward`; empty if nothing is."""
    own = vars(module)
    if "forward" in own:
        return "its forward was replaced"
    return "it has hooks" if any(value for name, value in own.items() if name.endswith("_hooks")) else ""


def is_plain_call(*modules: nn.Module) -> bool:
    """Whether calling any of these only runs its class's `forward`; cheap enough to check on every call."""
    for one in modules:
        if one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks:
            return False
        if "forward" in one.__dict__:
            return False
    return not _has_any_global_hook()
