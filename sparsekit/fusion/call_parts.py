"""Rewrite a method so that a module receives the operands of its input expression instead of the result.

`self.NORM(a + b)` becomes `self._sparsekit_of_sum(self.NORM, a, b)`, and `self.ACT(self.LAYER(x))` becomes
`self._sparsekit_of_layer(self.ACT, self.LAYER, x)`; so does `x = a + b` followed by `x = self.NORM(x)` in the next
line. The rest of the method does not change, nor does the order of evaluation.
"""

from __future__ import annotations

import ast
import copy
import types

from sparsekit.introspect.function_source import parsed
from sparsekit.introspect.model_code import called

#: Stands for the layer in a pair whose module receives a sum.
SUM = "+"

#: A module's name, and the name of the layer whose result it receives, or SUM.
Pair = tuple[str, str]


def _parts(node: ast.AST | None) -> tuple[str | None, list[ast.expr]]:
    """SUM and the two terms of a sum; NAME, `self.NAME` and the argument of `self.NAME(argument)`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return SUM, [node.left, node.right]
    name, argument = called(node)
    if name is None or argument is None or isinstance(argument, ast.Starred):
        return None, []
    return name, [node.func, argument]  # type: ignore[union-attr]


class _PartsForWholes(ast.NodeTransformer):
    """Rewrites the calls in `pairs`; without `pairs`, only finds the candidates."""

    def __init__(self, code: types.CodeType, pairs: frozenset[Pair] | None = None) -> None:
        self.shared_names = code.co_cellvars + code.co_freevars
        self.pairs = pairs
        self.found: set[Pair] = set()

    def _pair(self, node: ast.AST | None) -> Pair | None:
        """The pair of `self.NAME(PARTS)`, if it is to be rewritten."""
        outer, argument = called(node)
        inner, _ = _parts(argument)
        is_wanted = outer and inner and (self.pairs is None or (outer, inner) in self.pairs)
        return (str(outer), str(inner)) if is_wanted else None

    def visit_Call(self, node: ast.Call) -> ast.Call:
        pair = self._pair(node)
        if pair is not None:
            self.found.add(pair)
        if pair is not None and self.pairs is not None:
            method = "_sparsekit_of_sum" if pair[1] == SUM else "_sparsekit_of_layer"
            itself = ast.Name("self", ast.Load())
            node.args = [node.func, *_parts(node.args[0])[1]]
            node.func = ast.Attribute(itself, method, ast.Load())
        self.generic_visit(node)
        return node

    def visit_Try(self, node: ast.Try) -> ast.Try:
        return node  # an exception may leave intermediate variables visible

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        return node  # `self` means another object there

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for block in ("body", "orelse"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                setattr(node, block, self._in_a_row(statements))
        return super().generic_visit(node)

    def _in_a_row(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Inlines an assignment into the next line that uses it, if nothing can use the variable later."""
        kept: list[ast.stmt] = []
        for statement in statements:
            target = _assigned(kept[-1]) if kept else None
            _, argument = called(getattr(statement, "value", None))
            hands_on = isinstance(argument, ast.Name) and argument.id == target and target not in self.shared_names
            if hands_on and (isinstance(statement, ast.Return) or _assigned(statement) == target):
                arguments = statement.value.args  # type: ignore[attr-defined]
                arguments[0] = kept[-1].value  # type: ignore[attr-defined]
                if self._pair(statement.value):  # type: ignore[attr-defined]
                    kept.pop()
                else:
                    arguments[0] = argument
            kept.append(statement)
        return kept


def _assigned(statement: ast.stmt) -> str | None:
    """NAME of `NAME = ...`."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None


def rewritten(function: types.FunctionType, pairs: frozenset[Pair] | None) -> tuple[ast.FunctionDef | None, set[Pair]]:
    """A rewritten copy of a method's syntax tree, and the pairs found in it."""
    node = parsed(function)
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    if node is None or arguments[:1] != ("self",) or not set(function.__code__.co_freevars) <= {"__class__"}:
        return None, set()
    rewriter, node = _PartsForWholes(function.__code__, pairs), copy.deepcopy(node)
    rewriter.generic_visit(node)
    return node, rewriter.found
