"""Syntax trees of functions: every file is parsed once, every function is looked up once."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import types
from collections.abc import Iterator

from torch import nn


@functools.lru_cache(maxsize=32)
def _functions_in(source: str) -> dict[tuple[str, int], ast.FunctionDef]:
    """Functions of a file by name and by the line they start in, decorators included."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return {}
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {(one.name, min([one.lineno, *(at.lineno for at in one.decorator_list)])): one for one in functions}


@functools.cache
def parsed(function: types.FunctionType) -> ast.FunctionDef | None:
    """The function's syntax tree, not to be modified; None if its source cannot be read, and for a lambda."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    return _functions_in("".join(lines)).get((code.co_name, code.co_firstlineno))


def _plain(member: object) -> Iterator[types.FunctionType]:
    """The functions behind a member of a class: a method, a property, a static or a class method, decorated or not."""
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    parts = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "func", member),)
    for part in parts:
        function = inspect.unwrap(part) if callable(part) else part
        if isinstance(function, types.FunctionType):
            yield function


@functools.cache
def functions_of(cls: type[nn.Module]) -> tuple[tuple[str, types.FunctionType], ...]:
    """Names and functions of a class and its bases except `nn.Module`, including overridden ones."""
    bases = [base for base in cls.__mro__ if base not in (nn.Module, object)]
    members = [(name, member) for base in bases for name, member in vars(base).items()]
    return tuple((name, function) for name, member in members for function in _plain(member))
