"""What the code of a model's class does with the modules inside it, read from its source."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Iterator

from torch import nn

#: What a layer's `weight` may be asked for without its values.
_FACTS = ("device", "dtype", "shape")


def _methods(cls: type[nn.Module]) -> list[ast.FunctionDef]:
    """Code of a class's methods but the constructor, its bases' included; none where it cannot be read."""
    found = []
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        if name == "__init__" or function.__module__ == nn.Module.__module__:
            continue
        try:
            source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
            found += [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        except (OSError, SyntaxError):
            return []
    return found


def _own(node: ast.AST) -> str | None:
    """NAME for the expression `self.NAME`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def called(node: ast.AST | None) -> tuple[str | None, ast.expr | None]:
    """NAME and ARGUMENT of the expression `self.NAME(ARGUMENT)`."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return _own(node.func), node.args[0]
    return None, None


@functools.cache
def given_to(function: str, cls: type[nn.Module]) -> frozenset[str]:
    """NAME wherever a class calls a function first with `self.NAME`. Empty when its source cannot be read."""
    calls = (node for method in _methods(cls) for node in ast.walk(method) if isinstance(node, ast.Call) and node.args)
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == function)
    return frozenset(name for call in named if (name := _own(call.args[0])) is not None)


def _nested(method: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Pairs of `self.SECOND(self.FIRST(...))`."""
    for node in ast.walk(method):
        second, argument = called(node)
        first, _ = called(argument)
        if first and second:
            yield first, second


def _in_a_row(method: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Pairs of `x = self.FIRST(...)` and, in the next line, `x = self.SECOND(x)` or `return self.SECOND(x)`."""
    for block in (body for node in ast.walk(method) if isinstance(body := getattr(node, "body", None), list)):
        for one, two in itertools.pairwise(block):
            if not (isinstance(one, ast.Assign) and len(one.targets) == 1 and isinstance(one.targets[0], ast.Name)):
                continue
            name = one.targets[0].id
            keeps = isinstance(two, ast.Assign) and ast.unparse(two.targets[0]) != name
            if keeps or not isinstance(two, ast.Assign | ast.Return):
                continue
            first, _ = called(one.value)
            second, argument = called(two.value)
            if first and second and isinstance(argument, ast.Name) and argument.id == name:
                yield first, second


@functools.cache
def following(cls: type[nn.Module]) -> dict[str, str]:
    """Modules of a class whose results go straight and only to another: name -> name of the other.

    Empty when the class's source cannot be read.
    """
    methods = _methods(cls)
    uses = Counter(name for method in methods for node in ast.walk(method) if (name := _own(node)) is not None)
    pairs = [pair for method in methods for pair in (*_nested(method), *_in_a_row(method))]
    return {first: second for first, second in pairs if uses[first] == uses[second] == 1}


def _always_run(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of some code that stand in no branch of an `if`."""
    yield node
    is_branching = isinstance(node, ast.If | ast.IfExp)
    for child in [node.test] if is_branching else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
        yield from _always_run(child)


def _weights_used_in(nodes: list[ast.AST]) -> set[str]:
    """NAME of every `self.NAME.weight` that is asked for more than `_FACTS`, and whether it is a tensor."""
    asked = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr in _FACTS}
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    asked |= {id(call.args[0]) for call in calls if call.func.id == "isinstance"}  # type: ignore[attr-defined]
    weights = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "weight"]
    return {name for node in weights if id(node) not in asked and (name := _own(node.value)) is not None}


@functools.cache
def weights_used(cls: type[nn.Module]) -> frozenset[str]:
    """Modules of a class with whose `weight` each of its calls computes, instead of calling them.

    What it asks a weight's shape, type or device for does not count, nor does what stands in a branch of an `if`.
    Empty when the class's source cannot be read.
    """
    methods = {method.name: method for method in _methods(cls)}
    found: set[str] = set()
    reached = ["forward"]
    for name in reached:  # which grows
        nodes = list(_always_run(methods[name])) if name in methods else []
        found |= _weights_used_in(nodes)
        reached += {own for node in nodes if (own := _own(node)) in methods} - set(reached)
    return frozenset(found)


_MAY_NOT_RUN = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.Match, ast.match_case, ast.For, ast.AsyncFor, ast.While),
    *(ast.Try, ast.TryStar, ast.ExceptHandler, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
_ENDS_OR_WRITES = (ast.Return, ast.Raise, ast.Assert, ast.Break, ast.Continue, ast.Yield, ast.AugAssign, ast.Delete)


class _SharedInputs(ast.NodeVisitor):
    """Walks a method as it runs, and notes which modules get a variable that stays the same from call to call."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.open: dict[str, list[str]] = {}  # variable -> the run of modules that were called with it

    def visit_Call(self, node: ast.Call) -> None:
        name, argument = called(node)
        if name is not None and isinstance(argument, ast.Name):
            if argument.id not in self.open:
                self.open[argument.id] = []
                self.runs.append(self.open[argument.id])
            self.open[argument.id].append(name)
            return
        self.generic_visit(node)
        in_place = isinstance(node.func, ast.Attribute) and re.search(r"[^_]_$", node.func.attr)
        if in_place or any(keyword.arg == "out" for keyword in node.keywords):
            self.open.clear()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.value, ast.Name):  # a variable's attributes and methods leave it as it is
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        self.open.pop(node.id, None)  # assigned, or given to something else

    def visit_Assign(self, node: ast.Assign) -> None:
        for part in (node.value, *node.targets):
            self.visit(part)
        if any(isinstance(target, ast.Subscript) for target in node.targets):
            self.open.clear()

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _MAY_NOT_RUN):  # no run of calls goes into it or comes out
            self.open.clear()
            for child in ast.iter_child_nodes(node):
                self.visit(child)
                self.open.clear()
            return
        super().visit(node)
        if isinstance(node, _ENDS_OR_WRITES):
            self.open.clear()


@functools.cache
def shared_inputs(cls: type[nn.Module]) -> tuple[tuple[str, ...], ...]:
    """Modules of a class, in the order of their calls, that one method calls with one variable, unchanged in between.

    Empty when the class's source cannot be read.
    """
    found = []
    for method in _methods(cls):
        walk = _SharedInputs()
        for statement in method.body:
            walk.visit(statement)
        found += [tuple(run) for run in walk.runs if len(run) > 1]
    return tuple(found)
