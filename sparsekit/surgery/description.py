"""Check that a config still describes its model: a model built from it must have the same structure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparsekit.surgery.failures import failures
from sparsekit.surgery.inputs import transformers_parts

_PLAIN = (bool, int, float, str, type(None))


#: Attributes that need not agree: the effect of "layer_types" is compared in each transformer block instead.
_PASSED_OVER = ("training", "layer_types")


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, _PLAIN) for v in value))


def _facts(model: nn.Module) -> dict[tuple[str, str], Any]:
    """Structure of a model: (module, attribute) -> value; also shapes of parameters and buffers."""
    found: dict[tuple[str, str], Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if not key.startswith("_") and key not in _PASSED_OVER and _is_plain(value):
                found[name, key] = value
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            found[name, key] = tuple(tensor.shape)
    return found


def _made_again(model: nn.Module, fit: Callable[[nn.Module], object]) -> nn.Module:
    """A model of the same class on meta, built from its config after a round trip through a dictionary."""
    given: Any = model.config
    config = type(given).from_dict(copy.deepcopy(given.to_dict()))
    with torch.device("meta"):
        fresh: nn.Module = type(model)(config)
    fit(fresh)
    return fresh


def _is_kept(have: Any, made: Any) -> bool:
    """Whether a folder stores the value if it differs from the config: a float, such as a transformer block's depth."""
    return type(have) is type(made) is float


Difference = tuple[str, str, str, Any, Any]  # class, module, attribute, what the model has, what the config would build


def _differences(model: nn.Module, fresh: nn.Module) -> list[Difference]:
    have, made = _facts(model), _facts(fresh)
    kinds = {name: type(module).__name__ for name, module in (*fresh.named_modules(), *model.named_modules())}
    stored = set(model.state_dict())
    return [
        (kinds[name], name, key, have.get((name, key), "nothing"), made.get((name, key), "nothing"))
        for name, key in sorted(have.keys() | made.keys())
        if have.get((name, key), "nothing") != made.get((name, key), "nothing")
        and ((name, key) in made or f"{name}.{key}" in stored)  # extra attributes of the model do no harm
        and not _is_kept(have.get((name, key)), made.get((name, key)))
    ]


class Description:
    """How well a model's configs describe it, to be checked again after a change.

    Args:
        model: the model before the change; differences that exist already are ignored afterwards.
        fit: applied to a model built from its config, before weights would be loaded.
    """

    def __init__(self, model: nn.Module, fit: Callable[[nn.Module], object] = lambda model: None) -> None:
        self._fit = fit
        self._known: dict[str, set[tuple[str, str]]] = {}
        for name in transformers_parts(model):
            part = model.get_submodule(name)
            try:
                found = _differences(part, _made_again(part, fit))
            except failures():
                continue  # a class whose constructor needs more than its config
            self._known[name] = {(kind, key) for kind, _, key, _, _ in found}

    @property
    def known(self) -> bool:
        """Whether the model could be rebuilt from a config before the change."""
        return bool(self._known)

    def fault(self, model: nn.Module) -> str | None:
        """First difference between a changed model and what its config would build, in words; None if they agree."""
        for name, known in self._known.items():
            part = model.get_submodule(name)
            kind = type(part).__name__
            try:
                found = _differences(part, _made_again(part, self._fit))
            except failures() as error:
                text = " ".join(str(error).split())[:300]
                return f"{kind} could not be made again from its config: {type(error).__name__}: {text}"
            for own, place, key, have, made in found:
                if (own, key) not in known:
                    return (
                        f"{kind} could not be saved and loaded: {place or 'it'} has {key} {have}, and made again from "
                        f"its config it would have {made}"
                    )
        return None

    def check(self, model: nn.Module) -> None:
        """Refuse a changed model that could not be rebuilt from its config.

        Raises:
            ValueError: the model differs from what its config would build.
        """
        fault = self.fault(model)
        if fault is not None:
            raise ValueError(f"{fault}; nothing was changed")
