"""Find where a function uses the values of weights, and which names it mentions, by reading its source."""

from __future__ import annotations

import ast
import functools
import itertools
import types
from collections.abc import Iterator
from dataclasses import dataclass

from sparsekit.introspect.function_source import parsed

#: Attributes and methods that do not depend on a weight's values.
FACTS = (
    *("device", "dtype", "shape", "ndim", "requires_grad"),
    *("dim", "numel", "size", "element_size", "is_floating_point"),
)

#: Functions that do not read the values of a tensor or a module.
_ASKS = ("getattr", "hasattr", "id", "isinstance", "len", "print", "type")
#: Functions and methods that yield a container's items.
_ITEMS = ("children", "enumerate", "items", "list", "named_children", "reversed", "tuple", "values", "zip")

#: Conditions for code to run: each test, with the outcome that it needs.
Conditions = tuple[tuple[ast.expr, bool], ...]


@dataclass(frozen=True)
class Read:
    """A use of the weight of `self.PATH` or, if its owner is unknown, of any `PATH`; "*" matches any one name in it."""

    of_self: bool
    path: tuple[str, ...]
    conditions: Conditions


@dataclass(frozen=True)
class Reads:
    """The weights that a function uses, and the names of attributes, functions and modules that it mentions."""

    reads: tuple[Read, ...]
    mentions: tuple[tuple[str, Conditions], ...]


def _with_conditions(node: ast.AST, conditions: Conditions = ()) -> Iterator[tuple[ast.AST, Conditions]]:
    """All nodes of a syntax tree, each with the conditions under which it runs."""
    yield node, conditions
    for name, field in ast.iter_fields(node):
        inside = conditions
        if isinstance(node, ast.If | ast.IfExp) and name != "test":
            inside = (*conditions, (node.test, name == "body"))
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST):
                yield from _with_conditions(child, inside)


class _Paths:
    """Resolves expressions in a method to module paths."""

    def __init__(self, method: ast.FunctionDef) -> None:
        self.variables: dict[str, tuple[bool, tuple[str, ...]]] = {"self": (True, ())}
        for node in ast.walk(method):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._assign(node.targets[0], self.of(node.value))
            elif isinstance(node, ast.For | ast.comprehension):
                is_self, path = self.of(node.iter)
                self._assign(node.target, (is_self, path if path[-1:] == ("*",) else (*path, "*")))

    def _assign(self, target: ast.expr, path: tuple[bool, tuple[str, ...]]) -> None:
        if path[0]:
            named = (node.id for node in ast.walk(target) if isinstance(node, ast.Name) and node.id != "self")
            self.variables.update(dict.fromkeys(named, path))

    def of(self, node: ast.AST) -> tuple[bool, tuple[str, ...]]:
        if isinstance(node, ast.Name):
            return self.variables.get(node.id, (False, ()))
        if isinstance(node, ast.Attribute):
            is_self, path = self.of(node.value)
            return is_self, (*path, node.attr)
        if isinstance(node, ast.Subscript):
            is_self, path = self.of(node.value)
            return is_self, (*path, "*")
        return self._of_call(node) if isinstance(node, ast.Call) else (False, ())

    def _of_call(self, node: ast.Call) -> tuple[bool, tuple[str, ...]]:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name == "getattr" and len(node.args) > 1:
            asked = node.args[1]
            is_self, path = self.of(node.args[0])
            return is_self, (*path, str(asked.value) if isinstance(asked, ast.Constant) else "*")
        if name in _ITEMS:
            holder = node.args[0] if node.args else getattr(node.func, "value", node)
            is_self, path = self.of(holder) if holder is not node else (False, ())
            return is_self, (*path, "*")
        return False, ()


def _asked(nodes: list[ast.AST]) -> set[int]:
    """Ids of the expressions whose values are not read."""
    found = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr in FACTS}
    for node in nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _ASKS:
            found.update(id(argument) for argument in node.args)
        if isinstance(node, ast.Compare) and all(isinstance(one, ast.Is | ast.IsNot) for one in node.ops):
            found.update(id(one) for one in (node.left, *node.comparators))
    return found


def _from_names(code: types.CodeType) -> Reads:
    """Conservative answer without source: a function that mentions `weight` may use that of every name it mentions."""
    names = code.co_names
    uses = names if "weight" in names else ()
    return Reads(tuple(Read(True, (name,), ()) for name in uses), tuple((name, ()) for name in names))


@functools.cache
def reads_of(function: types.FunctionType) -> Reads:
    """Uses of weights in a function, and of modules that it passes to other functions."""
    method = parsed(function)
    if method is None:
        return _from_names(function.__code__)
    nodes = list(itertools.chain.from_iterable(_with_conditions(statement) for statement in method.body))
    paths, asked = _Paths(method), _asked([node for node, _ in nodes])
    reads, mentions = [], []
    for node, conditions in nodes:
        if isinstance(node, ast.Name | ast.Attribute):
            mentions.append((node.id if isinstance(node, ast.Name) else node.attr, conditions))
        if isinstance(node, ast.Attribute) and node.attr == "weight" and id(node) not in asked:
            reads.append(Read(*paths.of(node.value), conditions))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") not in _ASKS:
            given = (paths.of(one) for one in (*node.args, *(keyword.value for keyword in node.keywords)))
            reads += [Read(True, path, conditions) for is_self, path in given if is_self and path]
    return Reads(tuple(reads), tuple(mentions))
