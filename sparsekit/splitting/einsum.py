"""`SplitEinsum`: modules that multiply by 3-D parameters with `torch.einsum`, as XLNet does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.splitting.split_module import Matrix, SplitModule, shape_of

#: transformers class -> its parameters [hidden, heads, head size] -> the einsum equation that uses each.
_CLASSES: Mapping[str, Mapping[str, str]] = {
    "XLNetRelativeAttention": {**dict.fromkeys("qkvr", "ibh,hnd->ibnd"), "o": "ibnd,hnd->ibh"},
}
_TO_HEADS = "ibh,hnd->ibnd"


class _Operand:
    """Replaces a parameter in `torch.einsum`, and computes the product with a linear layer.

    Args:
        owner: the split module.
        layer: the layer's name.
        equation: the einsum equation that uses the parameter.
        shape: shape of the parameter.
    """

    def __init__(self, owner: nn.Module, layer: str, equation: str, shape: tuple[int, ...]) -> None:
        self.owner, self.layer, self.equation, self.shape = owner, layer, equation, shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weight."""
        weight: Any = self.owner.get_submodule(self.layer).weight
        return weight.dtype  # type: ignore[no-any-return]

    def product(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.owner.get_submodule(self.layer)
        if self.equation == _TO_HEADS:
            return layer(x).unflatten(-1, self.shape[1:])  # type: ignore[no-any-return]
        return layer(x.flatten(-2))  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        operand = args[-1]
        if func is torch.einsum and isinstance(operand, cls) and [args[0], len(args)] == [operand.equation, 3]:
            return operand.product(args[1])
        raise RuntimeError(f"a split parameter takes part in its einsum only, got {func.__name__}")


class SplitEinsum(SplitModule):
    """A module that runs its original code, with linear layers in place of parameters in `torch.einsum`."""

    @classmethod
    def find(cls, module: nn.Module) -> list[Matrix]:
        """The matrices of the parameters listed in `_CLASSES`."""
        original = parametrize.type_before_parametrizations(module)
        names = _CLASSES.get(original.__name__, {}) if original.__module__.startswith("transformers.") else {}
        if not all(len(shape_of(module, name)) == 3 for name in names):
            return []
        turned = {name: equation == _TO_HEADS for name, equation in names.items()}
        return [Matrix(f"{name}_proj", name, turned=turned[name], flat=True) for name in names]

    @classmethod
    def of(cls, module: nn.Module, matrices: Iterable[Matrix]) -> Self:
        """Split a module; the layers share its memory."""
        self = super().of(module, matrices)
        equations = _CLASSES[type(self.shell).__name__]
        for matrix in self.matrices:
            path = matrix.parameter
            # In __dict__, which is searched before parameters. The layer is found by name, so it may be swapped.
            vars(self.shell)[path] = _Operand(self, matrix.layer, equations[path], self.shapes[path])
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module that was split."""
        return self.shell(*args, **kwargs)

    def merge(self) -> Any:
        """The original module with the current weights of the layers, which must all be dense."""
        for path in self.shapes:
            vars(self.shell).pop(path)
        return super().merge()
