"""Let sparse layers apply the activation function that follows them, while the result is in cache.

Which function follows which layer is read from the model's own code: the method that calls both must hand the layer's
result straight to the activation function, and nothing else of the class may use either.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from sparsekit.nn import SparseLinear

#: Where modules come from that may be tried out to see which function they are.
_KNOWN_MODULES = ("torch.nn.modules.activation", "transformers.activations")
_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


class FusedActivation(nn.Module):
    """Takes the place of an activation function that the sparse layer before it applies; returns its input.

    Args:
        original: the activation function.
        layer: name of the sparse layer among the modules of the same parent.
    """

    def __init__(self, original: nn.Module, layer: str) -> None:
        super().__init__()
        self.original = original
        self.layer = layer

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input as it is."""
        return input


def recognise(module: nn.Module) -> str | None:
    """Name of the fused activation function that computes the same as `module`, if there is one.

    The module is tried on numbers from -10,000 to 10,000.
    """
    if type(module).__module__ not in _KNOWN_MODULES or any(True for _ in module.parameters()):
        return None
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    probe = torch.cat([torch.linspace(-8, 8, 1602), torch.tensor([-1e4, -100.0, 100.0, 1e4])])
    with torch.inference_mode():
        found = module(probe)
        for name, function in _FUNCTIONS.items():
            expected = function(probe)
            if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-6):
                return name
    return None


def _methods(cls: type[nn.Module]) -> Iterator[ast.FunctionDef]:
    """Code of a class's methods but the constructor, its bases' included."""
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        if name != "__init__" and function.__module__ != nn.Module.__module__:
            source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
            yield from (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))


def _own(node: ast.AST) -> str | None:
    """NAME for the expression `self.NAME`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def _called(node: ast.AST | None) -> tuple[str | None, ast.AST | None]:
    """NAME and ARGUMENT of the expression `self.NAME(ARGUMENT)`."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return _own(node.func), node.args[0]
    return None, None


def _nested(method: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Pairs of `self.SECOND(self.FIRST(...))`."""
    for node in ast.walk(method):
        second, argument = _called(node)
        first, _ = _called(argument)
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
            first, _ = _called(one.value)
            second, argument = _called(two.value)
            if first and second and isinstance(argument, ast.Name) and argument.id == name:
                yield first, second


def following(cls: type[nn.Module]) -> dict[str, str]:
    """Modules of a class whose results go straight and only to another: name -> name of the other.

    Empty when the class's source cannot be read.
    """
    try:
        methods = list(_methods(cls))
    except (OSError, SyntaxError):
        return {}
    uses = Counter(name for method in methods for node in ast.walk(method) if (name := _own(node)) is not None)
    pairs = [pair for method in methods for pair in (*_nested(method), *_in_a_row(method))]
    return {first: second for first, second in pairs if uses[first] == uses[second] == 1}


def _pairs(parent: nn.Module) -> dict[str, str]:
    if type(parent) is nn.Sequential:
        return dict(itertools.pairwise(name for name, _ in parent.named_children()))
    return following(type(parent))


def fuse_activations(model: nn.Module) -> int:
    """Have sparse layers apply the activation functions that follow them, in place. Returns how many."""
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    parents = [module for module in model.modules() if any(isinstance(c, SparseLinear) for c in module.children())]
    fused = 0
    for parent in parents:
        children = dict(parent.named_children())
        for first, second in _pairs(parent).items():
            layer, following = children.get(first), children.get(second)
            if not isinstance(layer, SparseLinear) or following is None or layer.activation is not None:
                continue
            name = recognise(following)
            if name is not None and places[id(layer)] == 1 and not layer._forward_hooks:
                layer.activation = name
                setattr(parent, second, FusedActivation(following, first))
                fused += 1
    return fused


def split_activations(model: nn.Module) -> None:
    """Undo `fuse_activations`, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FusedActivation):
                layer = parent.get_submodule(child.layer)
                if isinstance(layer, SparseLinear):
                    layer.activation = None
                setattr(parent, name, child.original)
