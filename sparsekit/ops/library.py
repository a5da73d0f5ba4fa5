"""The library of torch operators, and checks whether a call needs the dispatcher: compilers, autograd, modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from sparsekit import runtime

LIBRARY = torch.library.Library("sparsekit", "DEF")
#: Registered for CUDA too, so that a GPU tensor gets a clear error.
DEVICES = ("CPU", "CUDA")

NO_GRADIENT = "sparsekit's {} has no gradient; call it under torch.no_grad(), or train with torch.nn.functional.{}"

runtime.follow_torch_threads()


def needs_operator(input: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a call needs the dispatcher, for a compiler, tracer, transform, autograd, subclass or mode."""
    if torch.compiler.is_compiling() or type(input) is not torch.Tensor or torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._get_tracing_state() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.is_grad_enabled() and (input.requires_grad or (bias is not None and bias.requires_grad))


def is_plain(input: torch.Tensor) -> bool:
    """Whether a call on this input is plain eager inference."""
    return not (needs_operator(input, None) or torch.is_grad_enabled() or forward_ad._current_level >= 0)


def records_gradients(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd records gradients for any of these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def refuse_forward_mode() -> None:
    """Raise NotImplementedError while forward-mode gradients are computed."""
    if forward_ad._current_level >= 0 and not torch.compiler.is_compiling():
        raise NotImplementedError("forward-mode gradients are not supported; use reverse mode (backward, grad, vjp)")


def refusal(message: str) -> Callable[..., Any]:
    """Create a backward function that raises NotImplementedError with this message."""

    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise NotImplementedError(message)

    return backward
