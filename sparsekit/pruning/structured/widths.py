"""Shapes of a model's dense layers: in the config where it has room for them, and back into a freshly made model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.introspect.model_configs import RECORDED_SHAPES, recorded_shapes
from sparsekit.introspect.module_paths import name_within
from sparsekit.pruning.structured.attention import find_attentions, fit_attributes
from sparsekit.pruning.structured.narrowing import check_layers, is_dense, keep_inputs, keep_outputs, shape_of

#: Under which names transformers configs say how many hidden units an MLP has.
_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", "d_ff", "ffn_hidden_size")


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """Shapes of all dense layers, to be kept beside a state dict: name -> [out_features, in_features].

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


def tell_width(model: nn.Module, consumer: str, before: int) -> None:
    """Set the number of hidden units that the two modules around a layer keep, where it is what it was before.

    Args:
        model: the model.
        consumer: the layer that reads the units, as it is now.
        before: how many it read.
    """
    place = consumer
    for _ in range(2):
        place = place.rpartition(".")[0]
        around: Any = model.get_submodule(place)
        for name in (*_WIDTHS, "inner_dim"):
            if vars(around).get(name) == before:
                setattr(around, name, shape_of(model.get_submodule(consumer))[1])


def resize_to(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """Narrow a freshly made model's dense layers to recorded shapes, so that `load_state_dict` fits.

    The layers keep their first features, whose values mean nothing: load weights afterwards. Attentions are told how
    many heads they have. A model of uneven widths comes back in three lines:

        model = AutoModel.from_config(config)
        resize_to(model, config.sparsekit_widths)
        model.load_state_dict(load_file(folder / "model.safetensors"))

    Args:
        model: made from the config of the model that was narrowed; changed in place.
        shapes: layer name -> [out_features, in_features], of `shapes_of` or a config; layers that are not named stay.

    Returns:
        The model.

    Raises:
        TypeError: a named module is no dense layer.
        ValueError: a module does not exist, a shape is no pair of whole numbers above 0 or larger than the layer, or a
            layer that must change is masked or shares its weight.

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
        tell_width(model, name, before)
    for attention in find_attentions(model):
        if not changed.keys().isdisjoint(attention.layers):
            fit_attributes(model, attention)
    return model


@dataclass(frozen=True)
class _Home:
    """The transformers configs that a layer was made from."""

    config: Any  # of the outermost module that has one: what is saved with the model
    prefix: str  # that module's name
    own: Any  # the part of it that says how wide the layer is


def _home_of(model: nn.Module, layer: str) -> _Home | None:
    parts = layer.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts))]
    configs = [(getattr(model.get_submodule(prefix), "config", None), prefix) for prefix in prefixes]
    configs = [(config, prefix) for config, prefix in configs if hasattr(config, "to_dict")]
    if not configs:
        return None
    (config, prefix), (nearest, _) = configs[0], configs[-1]
    # T5's stacks have copies of the config, which are not saved; what they were copied from speaks for them.
    inside = nearest is config or any(value is nearest for value in vars(config).values())
    return _Home(config, prefix, nearest if inside else config)


def record_shapes(model: nn.Module, layers: Iterable[str]) -> None:
    """Write layers' shapes into the config of the outermost module that has one, as `config.sparsekit_widths`.

    The names are those inside that module. Layers of models without a transformers config are passed over; `shapes_of`
    serves them.
    """
    for layer in layers:
        home = _home_of(model, layer)
        if home is not None:
            shape = list(shape_of(model.get_submodule(layer)))
            setattr(
                home.config, RECORDED_SHAPES, {**recorded_shapes(home.config), name_within(home.prefix, layer): shape}
            )


@dataclass(frozen=True)
class _Entry:
    """An entry of a config that says how wide the MLPs are that some layers belong to."""

    config: Any
    name: str
    consumers: tuple[str, ...]


def _width_in(config: Any, name: str) -> int | None:
    width = getattr(config, name, None)
    if width is None and name == "n_inner" and hasattr(config, name):
        width = 4 * config.hidden_size  # GPT-2's meaning of None
    return width if isinstance(width, int) else None


class WidthEntries:
    """The config entries that say how wide a model's MLPs are; made before MLPs are narrowed, settled afterwards.

    Args:
        model: the model.
        consumers: the layers that read hidden units, of all its MLPs.
    """

    def __init__(self, model: nn.Module, consumers: Iterable[str]) -> None:
        self.model = model
        configs: dict[int, Any] = {}
        members: dict[int, list[str]] = {}
        uneven: set[int] = set()
        for layer in consumers:
            home = _home_of(model, layer)
            if home is not None:
                key = id(home.own)
                configs[key] = home.own
                members.setdefault(key, []).append(layer)
                recorded = name_within(home.prefix, layer) in recorded_shapes(home.config)
                if recorded or not is_dense(model.get_submodule(layer)):
                    uneven.add(key)
        entries = [self._entry(configs[key], members[key]) for key in members.keys() - uneven]
        self._entries = [entry for entry in entries if entry is not None]
        self._before: list[tuple[_Entry, int | None]] = []

    def _entry(self, config: Any, consumers: Sequence[str]) -> _Entry | None:
        for name in _WIDTHS:
            fitting = tuple(layer for layer in consumers if self._width(layer) == _width_in(config, name))
            if fitting:
                return _Entry(config, name, fitting)
        return None

    def _width(self, consumer: str) -> int:
        return shape_of(self.model.get_submodule(consumer))[1]

    def _says_more(self, entry: _Entry) -> bool:
        """Whether the entry sizes other parameters too, such as those of experts, which keep their width."""
        home = _home_of(self.model, entry.consumers[0])
        owner: Any = self.model if home is None else self.model.get_submodule(home.prefix)
        if home is None or not hasattr(owner, "_from_config"):
            return False
        with torch.device("meta"):
            fresh = type(owner)._from_config(copy.deepcopy(home.config))
        dense = {name for name, module in owner.named_modules() if is_dense(module)}
        made = {name: tensor.shape for name, tensor in fresh.named_parameters()}
        others = {name: tensor for name, tensor in owner.named_parameters() if name.rpartition(".")[0] not in dense}
        return any(tensor.shape != made.get(name, tensor.shape) for name, tensor in others.items())

    def settle(self) -> set[str]:
        """Write new widths where all MLPs of an entry have the same.

        Returns:
            The consumers whose width the config now says.
        """
        covered: set[str] = set()
        for entry in self._entries:
            widths = {self._width(layer) for layer in entry.consumers}
            if len(widths) == 1:
                before = getattr(entry.config, entry.name)
                setattr(entry.config, entry.name, widths.pop())
                if self._says_more(entry):
                    setattr(entry.config, entry.name, before)
                else:
                    self._before.append((entry, before))
                    covered.update(entry.consumers)
        return covered

    def unsettle(self) -> None:
        """Put back what `settle` wrote over."""
        for entry, width in self._before:
            setattr(entry.config, entry.name, width)
        self._before = []
