"""Find modules by dotted path, and convert between absolute and relative names."""

from __future__ import annotations

from typing import Any

from torch import nn


def find_module(module: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path inside another; None if there is none."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None


def full_name(prefix: str, path: str) -> str:
    """Name in the model of `path` inside the module `prefix`; each may be empty, for the module itself."""
    return f"{prefix}.{path}" if prefix and path else prefix or path


def name_within(prefix: str, name: str) -> str:
    """Name relative to the module `prefix`: the inverse of `full_name`."""
    if not prefix:
        return name
    return "" if name == prefix else name.removeprefix(f"{prefix}.")


def lies_within(prefix: str, name: str) -> bool:
    """Whether a name is that of the module `prefix` or of something inside it."""
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
