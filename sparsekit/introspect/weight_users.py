"""Layers whose weights a model's code reads directly, instead of calling the layer."""

from __future__ import annotations

import re
import types
from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from sparsekit.introspect.conditions import holds
from sparsekit.introspect.function_source import functions_of
from sparsekit.introspect.model_code import original_class
from sparsekit.introspect.weight_reads import Conditions, Read, reads_of

#: Code shared by all models, which only calls or initializes their layers.
_SHARED = re.compile(r"(torch|sparsekit)(\.|$)|transformers\.(?!models\.)")

#: Class -> names and modules of its instances in a model.
_Places = dict[type[nn.Module], list[tuple[str, nn.Module]]]


def _may_run(conditions: Conditions, modules: list[nn.Module]) -> bool:
    return any(all(holds(test, module) in (None, wanted) for test, wanted in conditions) for module in modules)


def _methods(cls: type[nn.Module], names: set[str]) -> Iterator[types.FunctionType]:
    """The methods with these names; overridden ones only if `super()` may call them."""
    found: dict[str, types.FunctionType] = {}
    for name, function in functions_of(cls):  # type: ignore[arg-type]  # mypy knows no hash of it
        calls_on = name not in found or "super" in found[name].__code__.co_names
        if name in names and calls_on and not _SHARED.match(function.__module__ or ""):
            found[name] = function
            yield function


class _Reached:
    """Functions that a model's `forward` may reach: every mentioned method of any of its classes, and helpers."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[type[nn.Module], list[nn.Module]] = defaultdict(list)
        for module in model.modules():
            self.modules[original_class(module)].append(module)
        self.names = {"forward"}
        self.helpers: dict[types.FunctionType, list[nn.Module]] = {}
        self.functions: dict[types.FunctionType, dict[type[nn.Module], None]] = defaultdict(dict)
        before = -1
        while before != len(self.names) + len(self.helpers):
            before = len(self.names) + len(self.helpers)
            for cls in self.modules:
                for function in _methods(cls, self.names):
                    self._mentions(function, self.modules[cls])
                    self.functions[function][cls] = None
            for helper in list(self.helpers):
                self._mentions(helper, [])

    def _mentions(self, function: types.FunctionType, modules: list[nn.Module]) -> None:
        for name, conditions in reads_of(function).mentions:
            if modules and conditions and not _may_run(conditions, modules):
                continue
            self.names.add(name)
            found = function.__globals__.get(name)
            if isinstance(found, types.FunctionType) and not _SHARED.match(found.__module__ or ""):
                self.helpers.setdefault(found, [])

    def reads(self) -> Iterator[tuple[Read, type[nn.Module] | None, str]]:
        """Every use of a weight, the class whose method contains it (None for a helper), and the name of either."""
        for function, classes in self.functions.items():
            for cls in classes:
                for read in reads_of(function).reads:
                    yield read, cls, cls.__name__
        for helper in self.helpers:
            for read in reads_of(helper).reads:
                if not read.of_self:
                    yield read, None, helper.__name__


def _patterns(read: Read, cls: type[nn.Module] | None, places: _Places) -> Iterator[str]:
    """Regular expressions for the names of the layers whose weights are read."""
    path = r"\.".join("[^.]+" if name == "*" else re.escape(name) for name in read.path)
    if not path:
        return
    for place, module in places[cls] if cls is not None else ():
        if _may_run(read.conditions, [module]):
            yield (re.escape(f"{place}." if place else "") if read.of_self else r"(.*\.)?") + path
    if cls is None:
        yield r"(.*\.)?" + path


def weights_used(model: nn.Module) -> dict[str, str]:
    """Layers whose `weight` a model's code may read directly -> the class or function that does.

    It finds `self.LAYER.weight`, `BLOCK.LAYER.weight`, layers in variables, in loops and through `getattr`, and layers
    that are passed to other code, in every method, property and helper function that `forward` may reach. Reading a
    weight's shape, dtype or device does not count, nor does code that the module's settings rule out. If the source of
    a function cannot be read and it mentions a weight, it is assumed to use everything it mentions.
    """
    places: _Places = defaultdict(list)
    layers = []
    for name, module in model.named_modules(remove_duplicate=False):
        places[original_class(module)].append((name, module))
        if hasattr(module, "in_features") or "weight" in module._parameters:
            layers.append(name)
    text = "\n".join(layers)
    found: dict[str, str] = {}
    for read, cls, user in _Reached(model).reads():
        for pattern in set(_patterns(read, cls, places)):
            for match in re.finditer(rf"^{pattern}$", text, re.MULTILINE):
                found.setdefault(match[0], user)
    return found
