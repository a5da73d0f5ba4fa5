"""The library of torch operators, and when a call must go through the dispatcher: a compiler, autograd, a mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from sparsekit import runtime

LIBRARY = torch.library.Library("sparsekit", "DEF")
#: On a GPU the same functions refuse in words; kernels for it come later.
DEVICES = ("CPU", "CUDA")

NO_GRADIENT = "sparsekit's {} has no gradient; call it under torch.no_grad(), or train with torch.nn.functional.{}"

runtime.follow_torch_threads()


def needs_operator(input: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether something must see the operator: a compiler, tracer or transform, autograd, a subclass, a mode."""
    if torch.compiler.is_compiling() or type(input) is not torch.Tensor or torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._get_tracing_state() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.is_grad_enabled() and (input.requires_grad or (bias is not None and bias.requires_grad))


def is_plain(input: torch.Tensor) -> bool:
    """Whether a call on this input is plain inference, of which nothing but its result is seen."""
    return not (needs_operator(input, None) or torch.is_grad_enabled() or forward_ad._current_level >= 0)


def records_gradients(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd would want a gradient of any of these."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def refuse_forward_mode() -> None:
    """Raise NotImplementedError while forward-mode gradients are computed."""
    if forward_ad._current_level >= 0 and not torch.compiler.is_compiling():
        raise NotImplementedError("forward-mode gradients are not supported; use reverse mode (backward, grad, vjp)")


def refusal(message: str) -> Callable[..., Any]:
    """A backward function that raises NotImplementedError with this message."""

    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise NotImplementedError(message)

    return backward
