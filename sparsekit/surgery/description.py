"""Whether a config still describes its model: one that is made of it must be built in the same way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparsekit.surgery.inputs import transformers_parts
from sparsekit.surgery.trial import FAILURES

_PLAIN = (bool, int, float, str, type(None))


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, _PLAIN) for v in value))


def _facts(model: nn.Module) -> dict[tuple[str, str], Any]:
    """What tells how a model is built: (module, attribute) -> value; shapes of parameters and buffers too."""
    found: dict[tuple[str, str], Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training" and _is_plain(value):
                found[name, key] = value
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            found[name, key] = tuple(tensor.shape)
    return found


def _made_again(model: nn.Module, fit: Callable[[nn.Module], object]) -> nn.Module | None:
    """A model of the same class from a copy of the config, without values; None where that cannot be had."""
    config: Any = copy.deepcopy(model.config)
    try:
        with torch.device("meta"):
            fresh = type(model)(config)  # type: ignore[arg-type]
        fit(fresh)
    except FAILURES:
        return None
    return fresh


class Description:
    """What the configs inside a model say about it, to be asked again once it was changed.

    Args:
        model: as it is before; whatever is wrong with its description by then is not looked at afterwards.
        fit: what is done to a model that is made of its config before weights are loaded.
    """

    def __init__(self, model: nn.Module, fit: Callable[[nn.Module], object] = lambda model: None) -> None:
        self._fit = fit
        self._known = {(kind, key) for kind, _, key, _, _ in self._differences(model)}

    def _differences(self, model: nn.Module) -> list[tuple[str, str, str, Any, Any]]:
        found = []
        for part in transformers_parts(model):
            found.extend(self._differences_of(model.get_submodule(part)))
        return found

    def _differences_of(self, model: nn.Module) -> list[tuple[str, str, str, Any, Any]]:
        fresh = _made_again(model, self._fit)
        if fresh is None:
            return []
        have, made = _facts(model), _facts(fresh)
        kinds = {name: type(module).__name__ for name, module in (*fresh.named_modules(), *model.named_modules())}
        return [
            (kinds[name], name, key, have.get((name, key), "nothing"), made.get((name, key), "nothing"))
            for name, key in sorted(have.keys() | made.keys())
            if have.get((name, key), "nothing") != made.get((name, key), "nothing")
        ]

    def check(self, model: nn.Module) -> None:
        """Refuse a changed model that could not be made again from its config.

        Raises:
            ValueError: something about it is not what its config would build.
        """
        for kind, name, key, have, made in self._differences(model):
            if (kind, key) not in self._known:
                raise ValueError(
                    f"{type(model).__name__}: {name or 'the model'} has {key} {have}, and a model made of the config "
                    f"would have {made}: it could not be saved and loaded. Nothing was changed"
                )
