"""Transformers configs in a model, and the shapes that sparsekit records in them."""

from __future__ import annotations

from typing import Any

from torch import nn

#: Config entry for layer shapes that follow from no other entry: layer name -> [out_features, in_features].
RECORDED_SHAPES = "sparsekit_widths"


def recorded_shapes(config: Any) -> dict[str, list[int]]:
    """A copy of the shapes that a config records; empty if it records none."""
    return dict(getattr(config, RECORDED_SHAPES, None) or {})


def configs_around(model: nn.Module, name: str) -> list[tuple[Any, str]]:
    """Configs of the modules around a module, outermost first, each with the module's name relative to its owner."""
    found: dict[int, tuple[Any, str]] = {}
    parts = name.split(".")
    for length in range(len(parts)):
        holder = ".".join(parts[:length])
        config = getattr(model.get_submodule(holder), "config", None)
        if hasattr(config, "to_dict"):
            found.setdefault(id(config), (config, ".".join(parts[length:])))
    return list(found.values())
