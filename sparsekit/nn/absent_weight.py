"""The `weight` attribute of a compressed module: shape, dtype and device of the dense weight, without data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sparsekit.introspect.weight_reads import FACTS


def _function(name: str) -> Callable[..., Any]:
    """Function that torch dispatches for an attribute or method of a tensor."""
    member = getattr(torch.Tensor, name)
    function: Callable[..., Any] = member if callable(member) else member.__get__
    return function


_FUNCTIONS = frozenset(_function(name) for name in FACTS)


class AbsentWeight(torch.Tensor):
    """A dense weight without data: shape, dtype and device.

    Models read these: T5 casts a layer's input to the type of its weight. Operations that need values raise
    RuntimeError (on TypeError, Python would try alternatives); any that bypass the check see NaN.
    """

    #: For the error message: the owner of this weight, and what to do instead.
    of_what = "a SparseLinear"
    instead = "call the layer, take to_csr() or to_linear(), or leave it dense: convert(model, ignore=[its name])"

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}(shape={list(self.shape)}, dtype={self.dtype}, device={str(self.device)!r})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _FUNCTIONS:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise RuntimeError(f"the weight of {cls.of_what} has a shape, a dtype and a device, but no values to compute "
                           f"with; {cls.instead}")  # fmt: skip


class AbsentTable(AbsentWeight):
    """The same for int8 embeddings."""

    of_what = "an Int8Embedding"
    instead = "call it, take to_embedding(), or leave it in float32: convert(model, embeddings='float32')"


def absent_weight(
    shape: tuple[int, int], dtype: torch.dtype, device: torch.device, cls: type[AbsentWeight] = AbsentWeight
) -> torch.Tensor:
    """Create an `AbsentWeight`, which takes the memory of one element."""
    values = torch.full((), torch.nan, dtype=dtype, device=device).expand(shape)
    # torch.export cannot create tensor subclasses while tracing.
    return values if torch.compiler.is_exporting() else values.as_subclass(cls)
