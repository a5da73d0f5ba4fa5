"""Find layers that a class's code calls one after the other with the same input, by reading its source."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from torch import nn

from sparsekit.introspect.function_source import functions_of, parsed
from sparsekit.introspect.model_code import called
from sparsekit.introspect.weight_reads import FACTS

_MAY_NOT_RUN = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.Match, ast.match_case, ast.For, ast.AsyncFor, ast.While),
    *(ast.Try, ast.TryStar, ast.ExceptHandler, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
_ENDS_OR_WRITES = (ast.Return, ast.Raise, ast.Assert, ast.Break, ast.Continue, ast.Yield, ast.AugAssign, ast.Delete)


class _Aliases:
    """Variables of a method that may be views of one another, regardless of where they are assigned."""

    def __init__(self, method: ast.FunctionDef, layers: frozenset[str]) -> None:
        self.layers = layers
        self.groups: dict[str, set[str]] = {}
        for node in ast.walk(method):
            source = getattr(node, "iter", getattr(node, "value", getattr(node, "context_expr", None)))
            targets = [*getattr(node, "targets", []), getattr(node, "target", getattr(node, "optional_vars", None))]
            named = {name for target in targets if target is not None for name in self.of(target)}
            if named and isinstance(source, ast.expr):
                self._unite(named | self.of(source))

    def _unite(self, names: set[str]) -> None:
        group = names.union(*(self.groups.get(name, ()) for name in names))
        for name in group:
            self.groups[name] = group

    def of(self, node: ast.AST) -> set[str]:
        """Names of the variables that a value may be a view of, without following `groups`."""
        if isinstance(node, ast.Name):
            return set() if node.id == "self" else {node.id}
        if isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare):  # gives a new tensor
            return set()
        if isinstance(node, ast.Attribute) and node.attr in FACTS:
            return set()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            return {f"self.{node.attr}"}
        if isinstance(node, ast.Subscript):
            return self.of(node.value)
        if isinstance(node, ast.IfExp):
            return self.of(node.body) | self.of(node.orelse)
        if isinstance(node, ast.Call):
            is_new = called(node)[0] in self.layers
            is_fact = isinstance(node.func, ast.Attribute) and node.func.attr in FACTS
            if is_new or is_fact:
                return set()
        return {name for child in ast.iter_child_nodes(node) for name in self.of(child)}

    def with_views(self, names: set[str]) -> set[str]:
        return names.union(*(self.groups.get(name, ()) for name in names))


class _SharedInputs(ast.NodeVisitor):
    """Walks a method in execution order, and records runs of layers called with the same, unmodified variable."""

    def __init__(self, method: ast.FunctionDef, layers: frozenset[str]) -> None:
        self.layers = layers
        self.aliases = _Aliases(method, layers)
        self.runs: list[list[str]] = []
        self.open: dict[str, list[str]] = {}  # variable -> the current run of layers called with it

    def _close(self, names: set[str]) -> None:
        for name in self.aliases.with_views(names):
            self.open.pop(name, None)

    def visit_Call(self, node: ast.Call) -> None:
        name, argument = called(node)
        if name in self.layers and isinstance(argument, ast.Name):
            if argument.id not in self.open:
                self.open[argument.id] = []
                self.runs.append(self.open[argument.id])
            self.open[argument.id].append(name)
            return
        if _only_reads(node):
            for given in (one for one in _arguments(node) if not isinstance(one, ast.Name)):
                self.visit(given)
            return
        self.generic_visit(node)
        if name not in self.layers:  # the callee may write to its arguments
            self._close({one for argument in _arguments(node) for one in self.aliases.of(argument)})
        in_place = isinstance(node.func, ast.Attribute) and re.search(r"[^_]_$", node.func.attr)
        if in_place or any(keyword.arg == "out" for keyword in node.keywords):
            self.open.clear()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.value, ast.Name):  # reading an attribute does not modify the variable
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):  # used elsewhere
            self._close({node.id})
        self.open.pop(node.id, None)

    def visit_Assign(self, node: ast.Assign) -> None:
        for part in (node.value, *node.targets):
            self.visit(part)
        if any(isinstance(target, ast.Subscript) for target in node.targets):
            self.open.clear()

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _MAY_NOT_RUN):  # runs of calls do not extend across its boundary
            self.open.clear()
            for child in ast.iter_child_nodes(node):
                self.visit(child)
                self.open.clear()
            return
        super().visit(node)
        if isinstance(node, _ENDS_OR_WRITES):
            self.open.clear()


def _only_reads(node: ast.Call) -> bool:
    """Whether the call is to a torch function that does not modify its arguments."""
    is_torch = re.fullmatch(r"(torch|(torch\.)?nn\.functional|F)\.\w*[^_]", ast.unparse(node.func))
    asked = {keyword.arg for keyword in node.keywords} & {"out", "inplace", None}
    return bool(is_torch) and not asked and not any(getattr(one, "value", None) is True for one in node.args)


def _arguments(node: ast.Call) -> Iterator[ast.expr]:
    yield from node.args
    yield from (keyword.value for keyword in node.keywords)


@functools.cache
def shared_inputs(cls: type[nn.Module], layers: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of layers, in call order, that a method of the class calls with the same, unmodified variable.

    Args:
        cls: the class.
        layers: names of its modules that return a new tensor and do not modify their input.
    """
    found = []
    for _, function in functions_of(cls):  # type: ignore[arg-type]  # mypy knows no hash of it
        method = parsed(function) if len(layers.intersection(function.__code__.co_names)) > 1 else None
        if method is None:
            continue
        walk = _SharedInputs(method, layers)
        for statement in method.body:
            walk.visit(statement)
        found += [tuple(run) for run in walk.runs if len(run) > 1]
    return tuple(found)
