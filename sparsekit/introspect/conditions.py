"""Evaluate conditions in a module's code that its settings determine."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable
from typing import Any

from torch import nn

from sparsekit.introspect.function_source import functions_of, parsed
from sparsekit.introspect.model_code import own

_UNKNOWN = object()
_PLAIN = (bool, int, float, str, type(None))
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


@functools.cache
def _state(cls: type[nn.Module]) -> frozenset[str]:
    """Every NAME that a method other than the constructor assigns as `self.NAME`: it may change from call to call."""
    functions = functions_of(cls)  # type: ignore[arg-type]  # mypy knows no hash of it
    methods = (parsed(function) for name, function in functions if name != "__init__")
    nodes = (node for method in methods if method is not None for node in ast.walk(method))
    assigned = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return frozenset(name for node in assigned if (name := own(node)))


def _own_value(name: str, module: nn.Module) -> Any:
    if name == "training":
        return False
    is_setting = name not in _state(type(module))  # type: ignore[arg-type]  # mypy knows no hash of it
    return vars(module).get(name, _UNKNOWN) if is_setting else _UNKNOWN


def _value(node: ast.expr, module: nn.Module) -> Any:
    """The plain value of a constant, of `self.NAME` or of `self.config.NAME`, in eval mode."""
    if isinstance(node, ast.Constant):
        return node.value
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name | ast.Attribute):
        return _UNKNOWN
    if ast.unparse(node.value) == "self.config":
        found = getattr(vars(module).get("config"), node.attr, _UNKNOWN)
    elif ast.unparse(node.value) == "self":
        found = _own_value(node.attr, module)
    else:
        found = _UNKNOWN
    return found if isinstance(found, _PLAIN) else _UNKNOWN


def _compared(node: ast.Compare, module: nn.Module) -> bool | None:
    left, right = _value(node.left, module), _value(node.comparators[0], module)
    compare = _COMPARE.get(type(node.ops[0]))
    if compare is None or len(node.ops) > 1 or left is _UNKNOWN or right is _UNKNOWN:
        return None
    try:
        return bool(compare(left, right))
    except TypeError:
        return None


def holds(node: ast.expr, module: nn.Module) -> bool | None:
    """Whether a condition in the code of a module's class is true for this module in eval mode; None: unknown."""
    if isinstance(node, ast.BoolOp):
        parts = [holds(value, module) for value in node.values]
        decisive = isinstance(node.op, ast.Or)
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        found = holds(node.operand, module)
        return None if found is None else not found
    if isinstance(node, ast.Compare):
        return _compared(node, module)
    value = _value(node, module)
    return None if value is _UNKNOWN else bool(value)
