"""`sparsekit::linear`: `activation(input @ weight.T + bias)` for a packed weight, and its gradients.

`sparsekit::linear_input_gradient` is `gradient @ weight`. Both compute in float32 and return the input's type.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from sparsekit import runtime
from sparsekit.formats.tensors import check_memory
from sparsekit.ops.addresses import LEAST_ADDRESS, check_packed, float_rows, in_memory, packed_address, refuse
from sparsekit.ops.library import DEVICES, LIBRARY, needs_operator, refuse_forward_mode
from sparsekit.runtime.checked_weights import checked_places

LIBRARY.define("linear(Tensor input, Tensor packed, Tensor? bias, SymInt out_features, str? activation) -> Tensor")
LIBRARY.define("linear_input_gradient(Tensor gradient, Tensor packed, SymInt in_features) -> Tensor")


def _bias_address(bias: torch.Tensor, out_features: int) -> tuple[torch.Tensor, int]:
    """A contiguous float32 bias and its address; the caller must keep it alive."""
    if bias.shape != (out_features,):
        raise ValueError(f"bias must have shape [{out_features}], got {list(bias.shape)}")
    if bias.dtype is not torch.float32 or not bias.is_cpu or not bias.is_contiguous() or bias.is_neg():
        refuse("bias", bias)
        bias = in_memory("bias", bias.detach()).float().contiguous()
    address = bias.data_ptr()
    if address < LEAST_ADDRESS:
        check_memory("bias", bias)
    return bias, address


def _linear(
    input: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int, activation: str | None
) -> torch.Tensor:
    place = packed.data_ptr()
    if checked_places.get(id(packed)) != place:  # `packed_address` inlined, to save a call
        check_packed(packed)
    rows = float_rows("input", input)
    rows_address = rows.data_ptr()
    if rows_address < LEAST_ADDRESS:
        check_memory("input", rows)
    bias_address = 0
    if bias is not None:
        bias, bias_address = _bias_address(bias, out_features)
    *leading, in_features = input.shape
    result = torch.empty(*leading, out_features, dtype=torch.float32, device="cpu")
    runtime.linear_at(
        place,
        packed.numel(),
        rows_address,
        in_features,
        in_features,
        math.prod(leading),
        result.data_ptr(),
        out_features,
        bias_address,
        0 if activation is None else runtime.activation_code(activation),
    )
    return result if input.dtype is torch.float32 else result.to(input.dtype)


def _linear_input_gradient(gradient: torch.Tensor, packed: torch.Tensor, in_features: int) -> torch.Tensor:
    place = packed_address(packed)
    rows = in_memory("gradient", float_rows("gradient", gradient))
    *leading, out_features = gradient.shape
    result = torch.empty(*leading, in_features, dtype=torch.float32, device="cpu")
    runtime.linear_input_gradient_at(
        place,
        packed.numel(),
        rows.data_ptr(),
        out_features,
        out_features,
        math.prod(leading),
        result.data_ptr(),
        in_features,
    )
    return result if gradient.dtype is torch.float32 else result.to(gradient.dtype)


@torch.library.register_fake("sparsekit::linear", lib=LIBRARY)
def _(input: Any, packed: Any, bias: Any, out_features: Any, activation: Any) -> Any:
    return input.new_empty((*input.shape[:-1], out_features))


@torch.library.register_fake("sparsekit::linear_input_gradient", lib=LIBRARY)
def _(gradient: Any, packed: Any, in_features: Any) -> Any:
    return gradient.new_empty((*gradient.shape[:-1], in_features))


def _activation_gradient(gradient: torch.Tensor, pre: torch.Tensor, activation: str) -> torch.Tensor:
    aten = torch.ops.aten
    match activation:
        case "relu":
            return aten.threshold_backward(gradient, pre, 0)
        case "gelu":
            return aten.gelu_backward(gradient, pre)
        case "gelu_tanh":
            return aten.gelu_backward(gradient, pre, approximate="tanh")
        case "silu":
            return aten.silu_backward(gradient, pre)
    raise ValueError(f"no gradient for the activation function {activation!r}")


def _setup_linear(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    input, packed, bias, ctx.out_features, activation = inputs
    ctx.activation = None if activation == "none" else activation
    ctx.in_features = input.shape[-1]
    ctx.bias_dtype = None if bias is None else bias.dtype
    # The input is saved only to recompute the activation function's input.
    saved = (input, bias) if ctx.activation else (None, None)
    ctx.save_for_backward(packed, *saved)


def _backward_linear(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    packed, input, bias = ctx.saved_tensors
    if ctx.activation:
        pre = torch.ops.sparsekit.linear(input, packed, bias, ctx.out_features, None)
        gradient = _activation_gradient(gradient, pre, ctx.activation)
    to_input = to_bias = None
    if ctx.needs_input_grad[0]:
        to_input = torch.ops.sparsekit.linear_input_gradient(gradient, packed, ctx.in_features)
    if ctx.needs_input_grad[2]:
        to_bias = gradient.float().sum_to_size(ctx.out_features).to(ctx.bias_dtype)
    return to_input, None, to_bias, None, None


def _setup_gradient(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    gradient, packed, _ = inputs
    ctx.out_features = gradient.shape[-1]
    ctx.save_for_backward(packed)


def _backward_gradient(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (packed,) = ctx.saved_tensors
    return torch.ops.sparsekit.linear(gradient, packed, None, ctx.out_features, None), None, None


for _key in DEVICES:
    LIBRARY.impl("linear", _linear, _key)
    LIBRARY.impl("linear_input_gradient", _linear_input_gradient, _key)
torch.library.register_autograd("sparsekit::linear", _backward_linear, setup_context=_setup_linear, lib=LIBRARY)
torch.library.register_autograd(
    "sparsekit::linear_input_gradient", _backward_gradient, setup_context=_setup_gradient, lib=LIBRARY
)


def linear(
    input: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int, activation: str | None
) -> torch.Tensor:
    """Sparse linear layer `activation(input @ weight.T + bias)` on a packed weight.

    In plain eager inference, the implementation is called directly, which saves the dispatcher's overhead.

    Args:
        input: float32, float16 or bfloat16, shape [..., in_features].
        packed: uint8, shape [bytes]: the weight from `CSR.pack`.
        bias: shape [out_features], any floating type.
        out_features: rows of the weight.
        activation: a name of `sparsekit.runtime.ACTIVATIONS`.

    Returns:
        The input's type, shape [..., out_features].

    Raises:
        TypeError: `input` has an unsupported type.
        ValueError: a shape does not fit, or `packed` is not a packed weight.
        KernelUnavailableError: a tensor is not on the CPU.
        NotImplementedError: forward-mode gradients are being computed.
    """
    refuse_forward_mode()
    if needs_operator(input, bias):
        result: torch.Tensor = torch.ops.sparsekit.linear(input, packed, bias, out_features, activation)
        return result
    return _linear(input, packed, bias, out_features, activation)
