"""Transformers configs inside a model, and the shapes that sparsekit records in them."""

from __future__ import annotations

from typing import Any

from torch import nn

#: Config entry for the shapes of layers that no other entry implies: layer name -> [out_features, in_features].
RECORDED_SHAPES = "sparsekit_widths"


def recorded_shapes(config: Any) -> dict[str, list[int]]:
    """A copy of the shapes that a config records; empty where it has none."""
    return dict(getattr(config, RECORDED_SHAPES, None) or {})


def configs_around(model: nn.Module, name: str) -> list[tuple[Any, str]]:
    """Configs of the modules around a module, outermost first, each with the module's name in its own."""
    found: dict[int, tuple[Any, str]] = {}
    parts = name.split(".")
    for length in range(len(parts)):
        holder = ".".join(parts[:length])
        config = getattr(model.get_submodule(holder), "config", None)
        if hasattr(config, "to_dict"):
            found.setdefault(id(config), (config, ".".join(parts[length:])))
    return list(found.values())
