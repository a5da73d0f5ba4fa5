"""Recompile methods of a class so that a module receives the operands of its input and can fuse their computation.

`self.NORM(a + b)` becomes `NORM.of_sum(a, b)`, and `self.ACT(self.LAYER(x))` becomes `ACT.of_layer(LAYER, x)`. Other
uses of these modules do not change, and a module without such a method is called as before.
"""

from __future__ import annotations
import __future__

import ast
import functools
import types
from typing import Any, ClassVar

from torch import nn

from sparsekit.fusion.call_parts import SUM, Pair, rewritten
from sparsekit.introspect.model_code import original_class


def _inner(code: types.CodeType, name: str) -> types.CodeType:
    return next(one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == name)


def _recompiled(function: types.FunctionType, pairs: frozenset[Pair]) -> types.FunctionType | None:
    """The method, rewritten and recompiled; None if there is nothing to rewrite or it cannot be recompiled."""
    node, found = rewritten(function, pairs)
    scope = function.__qualname__.split(".")
    if node is None or not found or len(scope) < 2 or scope[-1] != function.__name__ or not scope[-2].isidentifier():
        return None
    node.decorator_list = []
    around = ast.parse(f"class {scope[-2]}: pass")  # keeps the name mangling of the original class
    around.body[0].body = [node]  # type: ignore[attr-defined]
    flags = function.__code__.co_flags & __future__.annotations.compiler_flag
    code = compile(ast.fix_missing_locations(around), function.__code__.co_filename, "exec", flags, dont_inherit=True)
    method = _inner(_inner(code, scope[-2]), function.__name__)
    is_alike = method.co_freevars == function.__code__.co_freevars
    return _like(function, method, function.__closure__) if is_alike else None


def _like(function: types.FunctionType, code: types.CodeType, closure: Any) -> types.FunctionType:
    new = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    new.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(new, function)
    return new


def _contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _wrapped(wrapper: Any, pairs: frozenset[Pair]) -> types.FunctionType | None:
    """The method, recompiled, inside copies of the wrappers that decorators and base classes put around it."""
    if not isinstance(wrapper, types.FunctionType):
        return None
    inner = getattr(wrapper, "__wrapped__", None)
    if inner is None:
        return _recompiled(wrapper, pairs)
    new, cells = _wrapped(inner, pairs), wrapper.__closure__ or ()
    if new is None or not any(_contents(cell) is inner for cell in cells):
        return None
    itself = types.CellType()  # a wrapper may refer to itself, to check whether it is the outermost
    held = {id(inner): types.CellType(new), id(wrapper): itself}
    copied = _like(wrapper, wrapper.__code__, tuple(held.get(id(_contents(cell)), cell) for cell in cells))
    copied.__wrapped__ = new  # type: ignore[attr-defined]
    itself.cell_contents = copied
    return copied


def _methods(cls: type[nn.Module]) -> dict[str, Any]:
    """Methods of a class by name, in method resolution order."""
    bases = [base for base in cls.__mro__ if base not in (nn.Module, object)]
    return {name: member for base in reversed(bases) for name, member in vars(base).items() if callable(member)}


@functools.cache
def _found_in(function: types.FunctionType) -> frozenset[Pair]:
    return frozenset(rewritten(function, None)[1])


def _innermost(method: Any) -> Any:
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    return method


def _functions(cls: type[nn.Module]) -> tuple[types.FunctionType, ...]:
    """A class's current methods: users may replace them at run time."""
    return tuple(method for method in _methods(cls).values() if isinstance(method, types.FunctionType))


@functools.cache
def _pairs_of(methods: tuple[types.FunctionType, ...], children: frozenset[str]) -> frozenset[Pair]:
    found: set[Pair] = set()
    for method in methods:
        innermost = _innermost(method)
        if not isinstance(innermost, types.FunctionType) or children.isdisjoint(innermost.__code__.co_names):
            continue
        pairs = frozenset(pair for pair in _found_in(innermost) if children.issuperset({*pair} - {SUM}))
        found |= pairs if pairs and _wrapped(method, pairs) else set()
    return frozenset(found)


def pairs_of(module: nn.Module) -> frozenset[Pair]:
    """Children that a module's code calls with a sum or with another's result, in methods that can be recompiled."""
    return _pairs_of(_functions(original_class(module)), frozenset(module._modules))


class Recompiled:
    """Mixin of a class with recompiled methods; the class is rebuilt when an object is copied or unpickled."""

    sparsekit_original: ClassVar[type[nn.Module]]
    pairs: ClassVar[frozenset[Pair]]

    def _sparsekit_of_sum(self, module: Any, one: Any, other: Any) -> Any:
        return module.of_sum(one, other) if hasattr(module, "of_sum") else module(one + other)

    def _sparsekit_of_layer(self, module: Any, layer: Any, input: Any) -> Any:
        return module.of_layer(layer, input) if hasattr(module, "of_layer") else module(layer(input))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As for the original class, except that the recompiled class is rebuilt."""
        parts: Any = super().__reduce_ex__(protocol)
        return _fresh, (self.sparsekit_original, self.pairs, *parts[1][1:]), *parts[2:]


def _fresh(original: type[nn.Module], pairs: frozenset[Pair], *arguments: Any) -> nn.Module:
    cls = _with_pairs(original, pairs) or original
    return cls.__new__(cls, *arguments)


def _with_pairs(cls: type[nn.Module], pairs: frozenset[Pair]) -> type[nn.Module] | None:
    """Subclass of the same name that passes operands to the modules in `pairs`; None if it cannot be created."""
    return _made(cls, _functions(cls), pairs)  # type: ignore[arg-type]  # mypy knows no hash of it


@functools.cache
def _made(
    cls: type[nn.Module], functions: tuple[types.FunctionType, ...], pairs: frozenset[Pair]
) -> type[nn.Module] | None:
    methods = {name: new for name, method in _methods(cls).items() if (new := _wrapped(method, pairs)) is not None}
    if not methods:
        return None
    facts = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "sparsekit_original": cls, "pairs": pairs}
    made: type[nn.Module] = type(cls.__name__, (Recompiled, cls), facts)
    for name, method in methods.items():  # after creation, during which a base class may wrap them once more
        setattr(made, name, method)
    return made


def hand_parts(module: nn.Module, add: frozenset[Pair], drop: frozenset[Pair] = frozenset()) -> None:
    """Recompile a module's code to pass operands in the pairs `add`, and no longer in `drop`; see `pairs_of`.

    The module's class becomes a subclass of the same name, or its original class again.
    """
    original = original_class(module)
    before = module.pairs if isinstance(module, Recompiled) else frozenset()
    pairs = (before - drop) | add
    cls = _with_pairs(original, pairs) if pairs else None
    module.__class__ = original if cls is None else cls
