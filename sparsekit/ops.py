"""The torch operators: schema, shape function, CPU implementation and gradients, over addresses of tensors.

`sparsekit::linear` computes `activation(input @ weight.T + bias)` for a packed weight;
`sparsekit::linear_input_gradient` is `gradient @ weight`. Both compute in float32 and return the input's type.
`sparsekit::attention` is dense attention, and `sparsekit::add_layer_norm` normalises a sum; both in float32 and without
gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from sparsekit import runtime
from sparsekit.addresses import LEAST_ADDRESS, check_packed, float_rows, in_memory, packed_address, refuse
from sparsekit.checked_weights import checked_places
from sparsekit.formats.tensors import check_memory

_LIBRARY = torch.library.Library("sparsekit", "DEF")
_LIBRARY.define("linear(Tensor input, Tensor packed, Tensor? bias, SymInt out_features, str? activation) -> Tensor")
_LIBRARY.define("linear_input_gradient(Tensor gradient, Tensor packed, SymInt in_features) -> Tensor")
_LIBRARY.define("attention(Tensor query, Tensor key, Tensor value, Tensor? mask, bool causal, float? scale) -> Tensor")
_LIBRARY.define("add_layer_norm(Tensor input, Tensor added, Tensor? weight, Tensor? bias, float eps) -> Tensor")

runtime.follow_torch_threads()


def _bias_address(bias: torch.Tensor, out_features: int) -> tuple[torch.Tensor, int]:
    """A contiguous float32 bias, which the caller keeps alive, and its address."""
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
    if checked_places.get(id(packed)) != place:  # as `packed_address`, without the time of a call
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


def _heads(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy whose last dimension is contiguous."""
    if not tensor.is_cpu:
        raise runtime.KernelUnavailableError(
            f"attention runs on the CPU, got {name} on {tensor.device}; move it to 'cpu'"
        )
    if tensor.dtype is not torch.float32:
        raise TypeError(f"{name} must be float32, got {tensor.dtype}; convert it with .float()")
    if tensor.dim() != 4:
        raise ValueError(f"{name} must have shape [batch, heads, tokens, features], got {list(tensor.shape)}")
    tensor = in_memory(name, tensor)
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _mask(mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The mask as a view of this shape, copied where its keys are not contiguous."""
    if mask.dtype not in (torch.bool, torch.float32) or not mask.is_cpu:
        raise TypeError(f"mask must be bool or float32 on the CPU, got {mask.dtype} on {mask.device}")
    mask = in_memory("mask", mask)
    try:
        keys = mask if mask.dim() > 0 and mask.shape[-1] == shape[3] else mask.expand(*mask.shape[:-1], shape[3])
        return (keys if keys.stride(-1) == 1 else keys.contiguous()).expand(shape)
    except RuntimeError as error:
        raise ValueError(f"mask must broadcast to {list(shape)}, got shape {list(mask.shape)}") from error


def _attention_output(batch: Any, heads: Any, queries: Any, features: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Shape and strides: in memory the heads of a token lie next to each other."""
    row = heads * features
    return (batch, heads, queries, features), (queries * row, features, row, 1)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    query, key, value = _heads("query", query), _heads("key", key), _heads("value", value)
    batch, heads, queries, head_dim = query.shape
    shape, strides = _attention_output(batch, heads, queries, value.shape[3])
    result = torch.empty_strided(shape, strides, dtype=torch.float32, device="cpu")
    placed_mask = runtime.NO_MASK
    if mask is not None:
        mask = _mask(mask, (batch, heads, queries, key.shape[2]))
        placed_mask = (mask.data_ptr(), mask.shape, mask.stride(), mask.dtype is torch.bool)
    runtime.attention_at(
        query.data_ptr(),
        query.shape,
        query.stride(),
        key.data_ptr(),
        key.shape,
        key.stride(),
        value.data_ptr(),
        value.shape,
        value.stride(),
        result.data_ptr(),
        shape,
        strides,
        *placed_mask,
        causal,
        head_dim**-0.5 if scale is None else scale,
    )
    return result


def _normed(name: str, tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The tensor, or a copy that is contiguous."""
    if tensor.dtype is not torch.float32 or not tensor.is_cpu:
        raise TypeError(f"{name} must be float32 on the CPU, got {tensor.dtype} on {tensor.device}")
    if tensor.shape != shape or not shape:
        raise ValueError(f"{name} must have shape {list(shape)} to go with the others, got {list(tensor.shape)}")
    return in_memory(name, tensor).contiguous()


def _add_layer_norm(
    input: torch.Tensor, added: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    *leading, features = shape = input.shape
    input, added = _normed("input", input, shape), _normed("added", added, shape)
    weight = None if weight is None else _normed("weight", weight, shape[-1:])
    bias = None if bias is None else _normed("bias", bias, shape[-1:])
    result = torch.empty(shape, dtype=torch.float32, device="cpu")
    rows = input.data_ptr(), added.data_ptr(), result.data_ptr(), math.prod(leading), features
    places = [0 if one is None else one.data_ptr() for one in (weight, bias)]
    runtime.add_layer_norm_at(*rows, places[0], places[1], eps)
    return result


# On a GPU the same functions refuse in words; kernels for it come later.
for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("linear", _linear, _key)
    _LIBRARY.impl("linear_input_gradient", _linear_input_gradient, _key)
    _LIBRARY.impl("attention", _attention, _key)
    _LIBRARY.impl("add_layer_norm", _add_layer_norm, _key)


@torch.library.register_fake("sparsekit::linear", lib=_LIBRARY)
def _(input: Any, packed: Any, bias: Any, out_features: Any, activation: Any) -> Any:
    return input.new_empty((*input.shape[:-1], out_features))


@torch.library.register_fake("sparsekit::linear_input_gradient", lib=_LIBRARY)
def _(gradient: Any, packed: Any, in_features: Any) -> Any:
    return gradient.new_empty((*gradient.shape[:-1], in_features))


@torch.library.register_fake("sparsekit::attention", lib=_LIBRARY)
def _(query: Any, key: Any, value: Any, mask: Any, causal: Any, scale: Any) -> Any:
    batch, heads, queries, _ = query.shape
    return query.new_empty_strided(*_attention_output(batch, heads, queries, value.shape[3]))


@torch.library.register_fake("sparsekit::add_layer_norm", lib=_LIBRARY)
def _(input: Any, added: Any, weight: Any, bias: Any, eps: Any) -> Any:
    return input.new_empty(input.shape)


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
    # The input is needed again only to recompute what went into the activation function.
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


_NO_GRADIENT = "sparsekit's {} has no gradient; call it under torch.no_grad(), or train with torch.nn.functional.{}"
_NO_ATTENTION_GRADIENT = _NO_GRADIENT.format("attention", "scaled_dot_product_attention")
_NO_NORM_GRADIENT = _NO_GRADIENT.format("add_layer_norm", "layer_norm")


def _refusal(message: str) -> Callable[..., Any]:
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise NotImplementedError(message)

    return backward


torch.library.register_autograd("sparsekit::attention", _refusal(_NO_ATTENTION_GRADIENT), lib=_LIBRARY)
torch.library.register_autograd("sparsekit::add_layer_norm", _refusal(_NO_NORM_GRADIENT), lib=_LIBRARY)
torch.library.register_autograd("sparsekit::linear", _backward_linear, setup_context=_setup_linear, lib=_LIBRARY)
torch.library.register_autograd(
    "sparsekit::linear_input_gradient", _backward_gradient, setup_context=_setup_gradient, lib=_LIBRARY
)


def _needs_operator(input: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether something must see the operator: a compiler, tracer or transform, autograd, a subclass, a mode."""
    if torch.compiler.is_compiling() or type(input) is not torch.Tensor or torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._get_tracing_state() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.is_grad_enabled() and (input.requires_grad or (bias is not None and bias.requires_grad))


def is_plain(input: torch.Tensor) -> bool:
    """Whether a call on this input is plain inference, of which nothing but its result is seen."""
    return not (_needs_operator(input, None) or torch.is_grad_enabled() or forward_ad._current_level >= 0)


def _records_gradients(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _refuse_forward_mode() -> None:
    if forward_ad._current_level >= 0 and not torch.compiler.is_compiling():
        raise NotImplementedError("forward-mode gradients are not supported; use reverse mode (backward, grad, vjp)")


def linear(
    input: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, out_features: int, activation: str | None
) -> torch.Tensor:
    """Sparse linear layer `activation(input @ weight.T + bias)` on a packed weight.

    In plain eager inference the implementation is called directly, which saves the dispatcher's microseconds.

    Args:
        input: float32, float16 or bfloat16, shape [..., in_features].
        packed: uint8, shape [bytes]: the buffer that `CSR.pack` makes.
        bias: shape [out_features], any floating type.
        out_features: rows of the weight.
        activation: a name of `sparsekit.runtime.ACTIVATIONS`.

    Returns:
        The input's type, shape [..., out_features].

    Raises:
        TypeError: `input` has another type.
        ValueError: a shape does not fit, or `packed` is not a packed weight.
        KernelUnavailableError: a tensor is not on the CPU.
        NotImplementedError: forward-mode gradients are being computed.
    """
    _refuse_forward_mode()
    if _needs_operator(input, bias):
        result: torch.Tensor = torch.ops.sparsekit.linear(input, packed, bias, out_features, activation)
        return result
    return _linear(input, packed, bias, out_features, activation)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """Dense attention `softmax(scale * query @ key.mT + mask) @ value`; see `sparsekit.runtime.attention`.

    As `torch.nn.functional.scaled_dot_product_attention` with its `enable_gqa`, but for `causal`, which aligns the last
    query with the last key.

    Args:
        query: float32, shape [batch, heads, queries, head_dim].
        key: float32, shape [batch, key_heads, keys, head_dim]; `heads` is a multiple of `key_heads`.
        value: float32, shape [batch, key_heads, keys, value_dim].
        mask: bool (False hides) or float32 (added), broadcasts to [batch, heads, queries, keys].
        causal: whether query `i` sees the keys up to `i + keys - queries` only.
        scale: None for 1 / sqrt(head_dim).

    Returns:
        float32, shape [batch, heads, queries, value_dim]; its transpose(1, 2) is contiguous.

    Raises:
        TypeError: a tensor has another type.
        ValueError: a shape does not fit.
        KernelUnavailableError: a tensor is not on the CPU.
        NotImplementedError: gradients are being recorded for one of the tensors, or forward-mode ones computed.
    """
    _refuse_forward_mode()
    if _records_gradients(query, key, value, mask):
        raise NotImplementedError(_NO_ATTENTION_GRADIENT)
    if _needs_operator(query, None) or type(key) is not torch.Tensor or type(value) is not torch.Tensor:
        result: torch.Tensor = torch.ops.sparsekit.attention(query, key, value, mask, causal, scale)
        return result
    return _attention(query, key, value, mask, causal, scale)


def add_layer_norm(
    input: torch.Tensor, added: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """`torch.nn.functional.layer_norm(input + added, [features], weight, bias, eps)` in one pass over memory.

    `input`, `added` and the result: float32, shape [..., features]; `weight` and `bias`: float32, shape [features].
    Raises as `attention`.
    """
    if is_plain(input) and type(added) is torch.Tensor:
        return _add_layer_norm(input, added, weight, bias, eps)
    _refuse_forward_mode()
    if _records_gradients(input, added, weight, bias):
        raise NotImplementedError(_NO_NORM_GRADIENT)
    result: torch.Tensor = torch.ops.sparsekit.add_layer_norm(input, added, weight, bias, eps)
    return result
