"""Widths in transformers configs: the entries that size MLPs, and recorded shapes where no entry can."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparsekit.introspect.model_configs import RECORDED_SHAPES, recorded_shapes
from sparsekit.introspect.module_paths import name_within
from sparsekit.pruning.structured.narrowing import is_dense, shape_of

#: Config entries for the number of neurons in an MLP.
WIDTH_ENTRIES = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", "d_ff", "ffn_hidden_size")


@dataclass(frozen=True)
class _Home:
    """The transformers configs that a layer was built from."""

    config: Any  # of the outermost module that has one: the config that is saved with the model
    prefix: str  # that module's name
    own: Any  # the (sub)config that sets the layer's width


def _home_of(model: nn.Module, layer: str) -> _Home | None:
    parts = layer.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts))]
    configs = [(getattr(model.get_submodule(prefix), "config", None), prefix) for prefix in prefixes]
    configs = [(config, prefix) for config, prefix in configs if hasattr(config, "to_dict")]
    if not configs:
        return None
    (config, prefix), (nearest, _) = configs[0], configs[-1]
    # T5's stacks hold copies of the config, which are not saved; use the original instead.
    inside = nearest is config or any(value is nearest for value in vars(config).values())
    return _Home(config, prefix, nearest if inside else config)


def record_shapes(model: nn.Module, layers: Iterable[str]) -> None:
    """Write layers' shapes into the config of the outermost module that has one, as `config.sparsekit_widths`.

    Names are relative to that module. Layers without a transformers config around them are skipped; use `shapes_of`
    for such models.
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
    """A config entry for the width of some MLPs."""

    config: Any
    name: str
    consumers: tuple[str, ...]


def _width_in(config: Any, name: str) -> int | None:
    width = getattr(config, name, None)
    if width is None and name == "n_inner" and hasattr(config, name):
        width = 4 * config.hidden_size  # what None means in GPT-2
    return width if isinstance(width, int) else None


class WidthEntries:
    """The config entries for the widths of a model's MLPs: collected before pruning, written afterwards.

    Args:
        model: the model.
        consumers: the layers that consume the hidden units, for all MLPs of the model.
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
        for name in WIDTH_ENTRIES:
            fitting = tuple(layer for layer in consumers if self._width(layer) == _width_in(config, name))
            if fitting:
                return _Entry(config, name, fitting)
        return None

    def _width(self, consumer: str) -> int:
        return shape_of(self.model.get_submodule(consumer))[1]

    def _says_more(self, entry: _Entry) -> bool:
        """Whether the entry also sizes parameters that were not pruned, such as those of experts."""
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

    def write(self) -> set[str]:
        """Write the new width of every entry whose MLPs are all equally wide.

        Returns:
            The consumers whose width the config now determines.
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

    def restore(self) -> None:
        """Undo `write`."""
        for entry, width in self._before:
            setattr(entry.config, entry.name, width)
        self._before = []
