"""Recompile methods of a model's class so that a module gets the two terms of a sum, not the sum.

`self.NAME(a + b)` becomes `self.NAME(a, b)`, and so do `x = a + b` and `x = self.NAME(x)` in the next line. Everything
else of the method stays as it is, in the same order; what `NAME` does with two terms is its own affair.
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import types
from typing import Any, ClassVar

from torch import nn

from sparsekit.model_code import called


def _terms(node: ast.AST | None) -> list[ast.expr] | None:
    """The two terms of a sum."""
    is_sum = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)
    return [node.left, node.right] if is_sum else None  # type: ignore[union-attr]


class _TermsForSums(ast.NodeTransformer):
    """Rewrites the calls of `names`, or where there are none, finds which there could be."""

    def __init__(self, names: frozenset[str] | None = None) -> None:
        self.names = names
        self.found: set[str] = set()

    def _wants(self, name: str | None) -> bool:
        return name is not None and (self.names is None or name in self.names)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        name, argument = called(node)
        terms = _terms(argument)
        if terms and self._wants(name):
            self.found.add(str(name))
            node.args = terms
        self.generic_visit(node)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, self._in_a_row(statements))
        return super().generic_visit(node)

    def _in_a_row(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Puts the sum where it is used, if that is the next line and nothing can use it later."""
        kept: list[ast.stmt] = []
        for statement in statements:
            target = _assigned(kept[-1]) if kept else None
            name, argument = called(getattr(statement, "value", None))
            hands_on = isinstance(argument, ast.Name) and argument.id == target
            ends = isinstance(statement, ast.Return) or _assigned(statement) == target
            if hands_on and ends and self._wants(name) and _terms(kept[-1].value):  # type: ignore[attr-defined]
                statement.value.args = [kept.pop().value]  # type: ignore[attr-defined]
            kept.append(statement)
        return kept


def _assigned(statement: ast.stmt) -> str | None:
    """NAME of `NAME = ...`."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None


def _class_around(function: types.FunctionType) -> tuple[ast.Module, int] | None:
    """The method's code inside a class of its own, so that names mean what they did, and the line it starts in."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(f"class {function.__qualname__.split('.')[-2]}:\n" + "".join(lines))
    except (OSError, SyntaxError, TypeError, IndexError):
        return None
    method = tree.body[0].body[0]  # type: ignore[attr-defined]
    return (tree, first) if isinstance(method, ast.FunctionDef) and not method.decorator_list else None


def _inner(code: types.CodeType) -> types.CodeType:
    return next(one for one in code.co_consts if isinstance(one, types.CodeType))


def _recompiled(function: types.FunctionType, names: frozenset[str]) -> types.FunctionType | None:
    """The method with terms in place of sums; None where there is nothing to do, or it cannot be recompiled."""
    function = inspect.unwrap(function)
    found = _class_around(function)
    if found is None or not set(function.__code__.co_freevars) <= {"__class__"}:
        return None
    tree, first = found
    rewriter = _TermsForSums(names)
    rewriter.visit(tree)
    if not rewriter.found:
        return None
    ast.increment_lineno(tree, first - 2)
    flags = function.__code__.co_flags & __future__.annotations.compiler_flag
    code = compile(ast.fix_missing_locations(tree), function.__code__.co_filename, "exec", flags, dont_inherit=True)
    method = next(one for one in _inner(code).co_consts if getattr(one, "co_name", "") == function.__name__)
    if method.co_freevars != function.__code__.co_freevars:
        return None
    new = types.FunctionType(
        method, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    new.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(new, function)
    return new


def _methods(cls: type[nn.Module]) -> dict[str, types.FunctionType]:
    own = inspect.getmembers(cls, inspect.isfunction)
    return {name: function for name, function in own if function.__module__ != nn.Module.__module__}


@functools.cache
def given_sums(cls: type[nn.Module]) -> frozenset[str]:
    """Modules of a class that are called with a sum."""
    finder = _TermsForSums()
    for function in _methods(cls).values():
        found = _class_around(inspect.unwrap(function))
        if found is not None:
            finder.visit(found[0])
    return frozenset(finder.found)


class Recompiled:
    """Mixed into a class whose methods were recompiled; it is made anew when an object is copied or unpickled."""

    original: ClassVar[type[nn.Module]]
    names: ClassVar[frozenset[str]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the original, but for the class."""
        parts: Any = super().__reduce_ex__(protocol)
        return _fresh, (self.original, self.names, *parts[1][1:]), *parts[2:]


def _fresh(original: type[nn.Module], names: frozenset[str], *arguments: Any) -> nn.Module:
    cls = with_terms(original, names) or original  # type: ignore[arg-type]  # mypy knows no hash of it
    return cls.__new__(cls, *arguments)


@functools.cache
def with_terms(cls: type[nn.Module], names: frozenset[str]) -> type[nn.Module] | None:
    """Subclass, under the same name, that hands these modules the terms of sums; None where it cannot be made."""
    methods = {name: new for name, function in _methods(cls).items() if (new := _recompiled(function, names))}
    if not methods:
        return None
    facts = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "original": cls, "names": names}
    made: type[nn.Module] = type(cls.__name__, (Recompiled, cls), {**facts, **methods})
    return made if all(_wrapped_alike(cls, made, name) for name in methods) else None


def _wrapped_alike(cls: type[nn.Module], new: type[nn.Module], name: str) -> bool:
    """Whether what a base class puts around a method of its subclasses (transformers: checkpointing) is there again."""
    before, after = getattr(cls, name), getattr(new, name)
    return not hasattr(before, "__wrapped__") or before.__code__ is after.__code__
