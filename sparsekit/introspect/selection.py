"""Choose modules of a model by class name, module name or regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.introspect.dense_classes import is_dense_linear, is_linear_class


def _matches(pattern: str, name: str, module: nn.Module) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    cls = parametrize.type_before_parametrizations(module)  # a mask renames the class
    if pattern == "Linear" and is_linear_class(cls):
        return is_dense_linear(module)
    return pattern in (name, cls.__name__) or name.startswith(pattern + ".")


def _check_expression(word: str, pattern: str) -> None:
    try:
        re.compile(pattern.removeprefix("re:") if pattern.startswith("re:") else "")
    except re.error as error:
        raise ValueError(f"{word} {pattern!r} is no regular expression: {error}") from error


def select(model: nn.Module, targets: Iterable[str], ignore: Iterable[str] = ()) -> dict[str, nn.Module]:
    """Modules that match a pattern in `targets` and none in `ignore`.

    A pattern is a class name, a module name, which also matches everything inside that module ("encoder.layer.0"), or
    "re:" and a regular expression matched from the start of the name. "Linear" matches every dense linear layer,
    including transformers' `Conv1D` and subclasses of `nn.Linear` that compute the same.

    Raises:
        TypeError: `targets` or `ignore` is a string instead of a list of strings.
        ValueError: a pattern matches no module; the model itself is never selected, only what is inside it.
    """
    for word, patterns in (("targets", targets), ("ignore", ignore)):
        if isinstance(patterns, str):
            raise TypeError(f"{word} must be a list of patterns, got the string {patterns!r}; write [{patterns!r}]")
    targets, ignore = list(targets), list(ignore)
    named = [(name, module) for name, module in model.named_modules() if name]
    for word, patterns in (("target", targets), ("ignore pattern", ignore)):
        for pattern in patterns:
            _check_expression(word, pattern)
            if not any(_matches(pattern, name, module) for name, module in named):
                raise ValueError(
                    f"{word} {pattern!r} matches no module inside the model; give a class name, a module name or "
                    "'re:<regex>'"
                )
    return {
        name: module
        for name, module in named
        if any(_matches(p, name, module) for p in targets) and not any(_matches(p, name, module) for p in ignore)
    }


def select_matrices(model: nn.Module, targets: Iterable[str], ignore: Iterable[str] = ()) -> dict[str, nn.Module]:
    """The layers among `select(model, targets, ignore)` that multiply by a dense matrix: `nn.Linear` and `Conv1D`.

    Raises:
        TypeError, ValueError: as `select`; also if the selection contains no such layer.
    """
    targets = list(targets) if not isinstance(targets, str) else targets
    chosen = {name: module for name, module in select(model, targets, ignore).items() if is_dense_linear(module)}
    if not chosen:
        raise ValueError(
            f"targets {targets} with ignore {list(ignore)} leave no torch.nn.Linear and no transformers "
            "Conv1D of the model"
        )
    return chosen


def stored_weight(module: nn.Module) -> torch.Tensor | None:
    """The parameter that stores a module's `weight`, also under a mask; None if there is not exactly one."""
    if parametrize.is_parametrized(module, "weight"):
        return module.parametrizations.weight._parameters.get("original")  # type: ignore[union-attr]
    return module._parameters.get("weight")


def shared_weights(model: nn.Module) -> dict[str, list[str]]:
    """Weights that several modules share: name of each module -> names of the others."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        weight = stored_weight(module)
        if weight is not None:
            holders.setdefault(id(weight), []).append(name)
    shared = [names for names in holders.values() if len(names) > 1]
    return {name: [other for other in names if other != name] for names in shared for name in names}
