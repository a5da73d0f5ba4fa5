"""Record the shapes of a model's dense layers, and narrow a freshly built model to recorded shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.pruning.structured.attention import find_attentions, fit_attributes
from sparsekit.pruning.structured.config_widths import WIDTH_ENTRIES
from sparsekit.pruning.structured.narrowing import check_layers, is_dense, keep_inputs, keep_outputs, shape_of


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """Shapes of all dense layers, to store next to a state dict: name -> [out_features, in_features].

    >>> shapes_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    {'0': [8, 4], '2': [2, 8]}
    """
    return {name: list(shape_of(module)) for name, module in model.named_modules() if is_dense(module)}


def _checked(name: str, layer: nn.Module, shape: Any) -> tuple[int, int]:
    sizes = list(shape) if isinstance(shape, list | tuple) else []
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"the shape of {name} must be [out_features, in_features], both above 0, got {shape!r}")
    full = shape_of(layer)
    if sizes[0] > full[0] or sizes[1] > full[1]:
        raise ValueError(
            f"{name} is to get shape {sizes}, and has only {list(full)}; shapes belong to a narrowed copy of the "
            "model; make it from the same config"
        )
    return sizes[0], sizes[1]


def set_width_attributes(model: nn.Module, consumer: str, before: int) -> None:
    """Update attributes of the two enclosing modules that still hold the old number of neurons.

    Args:
        model: the model.
        consumer: the layer that consumes the units, already narrowed.
        before: its former number of inputs.
    """
    place = consumer
    for _ in range(2):
        place = place.rpartition(".")[0]
        around: Any = model.get_submodule(place)
        for name in (*WIDTH_ENTRIES, "inner_dim"):
            if vars(around).get(name) == before:
                setattr(around, name, shape_of(model.get_submodule(consumer))[1])


def resize_to(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """Narrow a freshly built model's dense layers to recorded shapes, so that `load_state_dict` fits.

    The layers keep their first features, with meaningless values: load weights afterwards. The head counts of
    attentions are updated. A model with uneven widths can be restored in three lines:

        model = AutoModel.from_config(config)
        resize_to(model, config.sparsekit_widths)
        model.load_state_dict(load_file(folder / "model.safetensors"))

    Args:
        model: built from the config of the model that was pruned; changed in place.
        shapes: layer name -> [out_features, in_features], from `shapes_of` or a config; other layers do not change.

    Returns:
        The model.

    Raises:
        TypeError: a named module is not a dense layer.
        ValueError: a module does not exist, a shape is not a pair of positive integers or is larger than the layer, or
            a layer that must change is masked or shares its weight.

    >>> wide = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> shapes_of(resize_to(wide, {"0": [3, 4], "2": [2, 3]}))
    {'0': [3, 4], '2': [2, 3]}
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    check_layers(model, [name for name, shape in shapes.items() if name not in modules or not is_dense(modules[name])])
    wanted = {name: _checked(name, modules[name], shape) for name, shape in shapes.items()}
    changed = {name: shape for name, shape in wanted.items() if shape != shape_of(modules[name])}
    check_layers(model, changed)
    for name, (outputs, inputs) in changed.items():
        before = shape_of(modules[name])[1]
        keep_outputs(modules[name], torch.arange(outputs))
        keep_inputs(modules[name], torch.arange(inputs))
        set_width_attributes(model, name, before)
    for attention in find_attentions(model):
        if not changed.keys().isdisjoint(attention.layers):
            fit_attributes(model, attention)
    return model
