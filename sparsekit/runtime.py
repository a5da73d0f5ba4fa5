"""Run packed weights from numpy: which instruction set, how many threads, one sparse linear layer. Needs no torch."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C
from sparsekit.checked_weights import checked_places, remember

KernelUnavailableError = _C.KernelUnavailableError

#: The kernels over raw addresses, for callers that hold arrays of their own kind; see the native core's
#: linear.h, attention.h and norm.h.
linear_at = _C.linear
linear_input_gradient_at = _C.linear_input_gradient
joined_linear_at = _C.joined_linear
attention_at = _C.attention
add_layer_norm_at = _C.add_layer_norm

#: A mask for `attention_at`: address, shape, strides, whether it is of bytes.
PlacedMask: TypeAlias = tuple[int, Sequence[int], Sequence[int], bool]
NO_MASK: PlacedMask = (0, (0, 0, 0, 0), (0, 0, 0, 0), False)

#: A packed weight: one self-describing buffer, made by `CSR.pack`.
Packed: TypeAlias = NDArray[np.uint8]

#: Fused activation functions by name, as torch computes them; "gelu" is the erf form.
ACTIVATIONS: dict[str, int] = {name: kind.value for name, kind in _C.Activation.__members__.items()}

_TORCH_LIBRARY = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"


def activation_code(name: str | None) -> int:
    """Code of a fused activation function for the native core.

    Raises:
        ValueError: `name` is not one of `ACTIVATIONS`.
    """
    code = ACTIVATIONS.get("none" if name is None else name)
    if code is None:
        raise ValueError(f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return code


def build() -> str:
    """How the native extension was built."""
    return f"{_C.build_type}, compiler {_C.compiler}"


def kernels() -> list[tuple[str, int, int]]:
    """The kernels of the instruction set in use: name, tokens a tile, tokens from which it is preferred."""
    return _C.kernels()


def run_peak(rounds: int) -> int:
    """Run multiply-adds from registers only, on the calling thread; returns the floating-point operations done.

    Time it to know what the arithmetic units of this machine could do at most.
    """
    return _C.run_peak(rounds)


def available_isas() -> list[str]:
    """Instruction sets that this machine can run, slowest first."""
    return _C.available_isas()


def current_isa() -> str:
    """Instruction set in use: the best of this machine, or the one that `SPARSEKIT_ISA` names.

    Raises:
        KernelUnavailableError: `SPARSEKIT_ISA` names one that is unknown or cannot run here.
    """
    return _C.current_isa()


def use_isa(name: str) -> None:
    """Use this instruction set from now on, in every thread.

    Raises:
        KernelUnavailableError: it is unknown or cannot run here.
    """
    _C.use_isa(name)


@functools.cache
def _torch_threads(library: str) -> bool:
    """Hand torch's `torch_parallel_for` (torch 2.10 and newer) to the core; whether it was there."""
    try:
        torch_cpu = ctypes.CDLL(library)
        symbols = torch_cpu.torch_parallel_for, torch_cpu.torch_get_num_threads
    except (OSError, AttributeError):
        return False
    addresses = [ctypes.cast(symbol, ctypes.c_void_p).value or 0 for symbol in symbols]
    _C.use_parallel(*addresses)
    return True


def follow_torch_threads() -> None:
    """Run on torch's own threads once torch is loaded, so that two pools never compete for the processors."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.__file__ is not None:
        _torch_threads(str(Path(torch.__file__).parent / "lib" / _TORCH_LIBRARY))


def num_threads() -> int:
    """Threads a call may use: torch's number when torch is loaded, else that of the pool.

    The pool starts with `SPARSEKIT_NUM_THREADS`, at most 64 or the machine's processors, or with the processors that
    the affinity mask and the container's CPU quota leave to this process.
    """
    follow_torch_threads()
    return _C.num_threads()


def set_num_threads(count: int) -> None:
    """Set the number of threads of the pool that runs without torch.

    Raises:
        ValueError: `count` is below 1, or above 64 and the machine's processors.
        RuntimeError: torch is loaded, so its threads are used.
    """
    follow_torch_threads()
    if _C.uses_outside_threads():
        raise RuntimeError(f"torch is loaded and its threads are used; call torch.set_num_threads({count})")
    _C.set_pool_threads(count)


@dataclass(frozen=True)
class PackedInfo:
    """What a packed weight says of itself."""

    out_features: int
    in_features: int
    nnz: int
    values: str  # how it holds them: "float32", "bf16", "fp16" or "int8"
    height: int  # output features next to each other that share their columns: 1, or 4 in 4x1 blocks

    @property
    def block(self) -> str:
        """Shape of the blocks that the kernels use: "1x1" or "4x1"."""
        return f"{self.height}x1"


def check_packed(holder: Any, place: int, nbytes: int) -> None:
    """Check the packed weight of an array or tensor, once: see `checked_weights`.

    Raises:
        ValueError: it is no packed weight, or a damaged one.
    """
    _C.check_packed(place, nbytes)
    remember(holder, place)


def packed_info(packed: Packed) -> PackedInfo:
    """Read the header of a packed weight.

    Raises:
        ValueError: the buffer is not a packed weight.
    """
    return PackedInfo(*_C.packed_info(packed))


def packed_scales(packed: Packed) -> NDArray[np.float32] | None:
    """Scales of the rows of an int8 weight, float32, shape [out_features]; None for float values.

    Raises:
        ValueError: the buffer is not a packed weight.
    """
    return _C.packed_scales(packed)


def _check_float32(name: str, array: NDArray[np.float32]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be a float32 array, got {found}; convert it with np.asarray({name}, np.float32)")


def linear(
    x: NDArray[np.float32],
    packed: Packed,
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
) -> NDArray[np.float32]:
    """Sparse linear layer `activation(x @ weight.T + bias)`.

    A weight that is not stored is absent, not zero: where the weight has no entry, infinities and NaN of `x` do not
    reach the result.

    Args:
        x: float32, shape [..., in_features].
        packed: the weight, from `CSR.pack`.
        bias: float32, shape [out_features].
        activation: a name of `ACTIVATIONS`, applied to the result.

    Returns:
        float32, shape [..., out_features].

    Raises:
        TypeError: `x` or `bias` is not float32.
        ValueError: a shape does not fit, `packed` is not a packed weight, or it has int8 values and `x` is not finite.

    >>> from sparsekit import CSR
    >>> weight = CSR.from_dense(np.array([[0.0, 2.0], [-1.0, 0.0]], dtype=np.float32))
    >>> linear(np.array([[3.0, 4.0]], dtype=np.float32), weight.pack(), activation="relu")
    array([[8., 0.]], dtype=float32)
    """
    info = packed_info(packed)
    place = packed.ctypes.data
    if checked_places.get(id(packed)) != place:
        check_packed(packed, place, packed.size)
    out_features, in_features = info.out_features, info.in_features
    code = activation_code(activation)
    _check_float32("x", x)
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ValueError(f"x must have in_features = {in_features} as its last dimension, got shape {x.shape}")
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), in_features)
    if bias is not None:
        _check_float32("bias", bias)
        if bias.shape != (out_features,):
            raise ValueError(f"bias must have shape [out_features] = [{out_features}], got {list(bias.shape)}")
        bias = np.ascontiguousarray(bias)
    result = np.empty((rows.shape[0], out_features), dtype=np.float32)
    follow_torch_threads()
    _C.linear(
        place,
        packed.size,
        rows.ctypes.data,
        in_features,
        in_features,
        rows.shape[0],
        result.ctypes.data,
        out_features,
        0 if bias is None else bias.ctypes.data,
        code,
    )
    return result.reshape(*x.shape[:-1], out_features)


def _heads(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array, or a copy whose last dimension is contiguous."""
    _check_float32(name, array)
    if array.ndim != 4:
        raise ValueError(f"{name} must have 4 dimensions [batch, heads, tokens, features], got shape {array.shape}")
    return _rows_contiguous(array)


def _rows_contiguous(array: NDArray[Any]) -> NDArray[Any]:
    whole = all(stride % array.itemsize == 0 for stride in array.strides)
    return array if whole and array.strides[-1] == array.itemsize else np.ascontiguousarray(array)


def _placed(array: NDArray[Any]) -> tuple[int, Sequence[int], Sequence[int]]:
    """Address, shape, and strides in entries."""
    return array.ctypes.data, array.shape, tuple(stride // array.itemsize for stride in array.strides)


def _mask(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The mask as a view of this shape, copied where its keys are not contiguous."""
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.float32, np.bool_):
        found = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(f"mask must be a bool or float32 array, got {found}")
    try:
        np.broadcast_to(mask, shape)
    except ValueError as error:
        raise ValueError(f"mask must broadcast to {list(shape)}, got shape {list(mask.shape)}") from error
    keys = np.broadcast_to(mask, (*mask.shape[:-1], shape[-1]))
    return np.broadcast_to(_rows_contiguous(keys), shape)


def attention(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    mask: NDArray[np.float32] | NDArray[np.bool_] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> NDArray[np.float32]:
    """Dense attention `softmax(scale * query @ key.T + mask) @ value`, head by head.

    A query that sees no key gets 0. An infinity or NaN in a key or value may reach queries that it is masked from: its
    weight is 0, and 0 * inf is NaN.

    Args:
        query: float32, shape [batch, heads, queries, head_dim].
        key: float32, shape [batch, key_heads, keys, head_dim]; `heads` is a multiple of `key_heads`, and heads of
            queries next to each other share one.
        value: float32, shape [batch, key_heads, keys, value_dim].
        mask: broadcasts to [batch, heads, queries, keys]; float32 is added to the scores, bool hides where it is False.
        causal: whether query `i` sees the keys up to `i + keys - queries` only; the last query sees all.
        scale: None for 1 / sqrt(head_dim).

    Returns:
        float32, shape [batch, heads, queries, value_dim]; in memory the heads of a token lie next to each other.

    Raises:
        TypeError: an array has another type.
        ValueError: a shape does not fit.

    >>> one = np.ones((1, 1, 1, 4), np.float32)
    >>> attention(one, np.zeros((1, 1, 3, 4), np.float32), np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1))
    array([[[[1.]]]], dtype=float32)
    """
    query, key, value = _heads("query", query), _heads("key", key), _heads("value", value)
    batch, heads, queries, head_dim = query.shape
    result = np.empty((batch, queries, heads, value.shape[3]), np.float32).swapaxes(1, 2)
    mask_address, mask_shape, mask_strides, of_bytes = NO_MASK
    if mask is not None:
        mask = _mask(mask, (batch, heads, queries, key.shape[2]))
        (mask_address, mask_shape, mask_strides), of_bytes = _placed(mask), mask.dtype == np.bool_
    follow_torch_threads()
    attention_at(
        *_placed(query),
        *_placed(key),
        *_placed(value),
        *_placed(result),
        mask_address,
        mask_shape,
        mask_strides,
        of_bytes,
        causal,
        head_dim**-0.5 if scale is None else scale,
    )
    return result


def _feature_row(name: str, row: NDArray[np.float32] | None, features: int) -> tuple[NDArray[np.float32] | None, int]:
    """A contiguous row of numbers, which the caller keeps alive, and its address."""
    if row is None:
        return None, 0
    _check_float32(name, row)
    if row.shape != (features,):
        raise ValueError(f"{name} must have shape [{features}], got {list(row.shape)}")
    row = np.ascontiguousarray(row)
    return row, row.ctypes.data


def add_layer_norm(
    x: NDArray[np.float32],
    added: NDArray[np.float32],
    weight: NDArray[np.float32] | None = None,
    bias: NDArray[np.float32] | None = None,
    eps: float = 1e-5,
) -> NDArray[np.float32]:
    """Layer normalisation of a sum over the last dimension, as torch's `layer_norm(x + added)`.

    Args:
        x: float32, shape [..., features].
        added: float32, the same shape.
        weight: float32, shape [features], multiplied with the result.
        bias: float32, shape [features], added to that.
        eps: added to the variance.

    Returns:
        float32, the shape of `x`.

    Raises:
        TypeError: an array has another type.
        ValueError: a shape does not fit.

    >>> one = np.ones((1, 2), np.float32)
    >>> add_layer_norm(one, np.array([[1.0, 3.0]], np.float32))
    array([[-0.999995,  0.999995]], dtype=float32)
    """
    _check_float32("x", x)
    _check_float32("added", added)
    if x.ndim == 0 or added.shape != x.shape:
        raise ValueError(f"x and added must have the same shape [..., features], got {x.shape} and {added.shape}")
    features = x.shape[-1]
    x, added = np.ascontiguousarray(x), np.ascontiguousarray(added)
    weight, weight_address = _feature_row("weight", weight, features)
    bias, bias_address = _feature_row("bias", bias, features)
    result = np.empty_like(x)
    follow_torch_threads()
    add_layer_norm_at(
        x.ctypes.data,
        added.ctypes.data,
        result.ctypes.data,
        math.prod(x.shape[:-1]),
        features,
        weight_address,
        bias_address,
        eps,
    )
    return result
