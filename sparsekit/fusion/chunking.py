"""`keep_signatures`: cache the signatures that transformers' `apply_chunking_to_forward` inspects on every call."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

from torch import nn

from sparsekit.introspect.model_code import given_to


class _SignedMethod:
    """A module's method with a cached signature, which saves `inspect.signature` the work."""

    def __init__(self, method: MethodType) -> None:
        self.method = method
        self.__signature__ = inspect.signature(method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.method(*args, **kwargs)


def keep_signatures(model: nn.Module) -> int:
    """Cache the signatures of the methods that a model passes to `apply_chunking_to_forward`. Returns how many.

    BERT and its relatives call their MLP through it, without chunks unless `chunk_size_feed_forward` is set.
    """
    kept = 0
    for module in model.modules():
        for name in given_to("apply_chunking_to_forward", type(module)):  # type: ignore[arg-type]
            method = getattr(module, name, None)
            if isinstance(method, MethodType) and name not in vars(module):
                setattr(module, name, _SignedMethod(method))
                kept += 1
    return kept


def forget_signatures(model: nn.Module) -> None:
    """Undo `keep_signatures`, in place."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if isinstance(value, _SignedMethod)]:
            delattr(module, name)
