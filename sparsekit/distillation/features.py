"""Record outputs of modules inside a model (features), for models that do not return their hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def _tensor_of(name: str, output: Any) -> torch.Tensor:
    """A module's output, or the first item of a tuple, which in transformer blocks is the hidden states."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(first, torch.Tensor):
        raise TypeError(f"{name} must return a tensor or a tuple that begins with one, got {type(output).__name__}")
    return first


class Features:
    """Records the outputs of modules while a model runs, with gradients.

    Use it in a `with` block; the latest outputs can be read inside and afterwards.

    Args:
        model: any model.
        names: names of modules inside it, in the order of `tensors`.

    Raises:
        TypeError: `names` is a string.
        ValueError: there are no names, a name is repeated, or the model has no such module.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with Features(model, ["0", "1"]) as features:
    ...     _ = model(torch.ones(4, 2))
    >>> [list(tensor.shape) for tensor in features.tensors]
    [[4, 3], [4, 3]]
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        if isinstance(names, str):
            raise TypeError(f"names must be a list of module names, got the string {names!r}; write [{names!r}]")
        self.names = tuple(names)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be module names, at least one, each once, got {list(self.names)}")
        modules = dict(model.named_modules(remove_duplicate=False))
        missing = [name for name in self.names if name not in modules]
        if missing:
            raise ValueError(f"the model has no module {missing[0]!r}; give names as model.named_modules() has them")
        self._modules = {name: modules[name] for name in self.names}
        self._found: dict[str, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def _recorder(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def record(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._found[name] = _tensor_of(name, output)

        return record

    def __enter__(self) -> Features:
        self._found.clear()
        self._handles = [module.register_forward_hook(self._recorder(name)) for name, module in self._modules.items()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getitem__(self, name: str) -> torch.Tensor:
        """Latest output of a module.

        Raises:
            KeyError: it is none of the names.
            ValueError: the module has not run in the `with` block.
        """
        if name not in self._modules:
            raise KeyError(name)
        if name not in self._found:
            raise ValueError(f"{name} has not run; call the model inside the with block")
        return self._found[name]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Latest outputs of all modules, in the order of `names`; `LayerMap` pairs them with a teacher's.

        Raises:
            ValueError: a module has not run in the `with` block.
        """
        return [self[name] for name in self.names]
