"""How the code of a class uses its submodules, read from its source."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from torch import nn

from sparsekit.introspect.function_source import functions_of, parsed


def _methods(cls: type[nn.Module], name: str) -> Iterator[ast.FunctionDef]:
    """Syntax trees of the methods of a class and its bases that mention a name, where their source can be read."""
    for _, function in functions_of(cls):  # type: ignore[arg-type]  # mypy knows no hash of it
        method = parsed(function) if name in function.__code__.co_names else None
        if method is not None:
            yield method


def own(node: ast.AST) -> str | None:
    """NAME for the expression `self.NAME`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def called(node: ast.AST | None) -> tuple[str | None, ast.expr | None]:
    """NAME and ARGUMENT of the expression `self.NAME(ARGUMENT)`."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return own(node.func), node.args[0]
    return None, None


@functools.cache
def given_to(function: str, cls: type[nn.Module]) -> frozenset[str]:
    """Every NAME that a class passes to a function as `function(self.NAME, ...)`; empty without readable source."""
    nodes = (node for method in _methods(cls, function) for node in ast.walk(method))
    calls = (node for node in nodes if isinstance(node, ast.Call) and node.args)
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function)
    return frozenset(name for call in named if (name := own(call.args[0])) is not None)


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class of a module before `sparsekit.fusion` recompiled its methods, if it did."""
    found: type[nn.Module] = getattr(type(module), "sparsekit_original", type(module))
    return found
