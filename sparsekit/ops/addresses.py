"""Addresses of tensors for kernels, after checks of device, dtype, layout, negative bit and freed memory."""

from __future__ import annotations

import torch

from sparsekit import runtime
from sparsekit.formats.dtypes import BY_NAME, FLOATS
from sparsekit.formats.tensors import check_memory
from sparsekit.runtime.checked_weights import checked_places

#: A tensor whose memory was freed has its storage offset as address. 64-bit Linux maps no memory below this address, so
#: tensors above it need no further check.
LEAST_ADDRESS = 1 << 40

_FLOATS = tuple(BY_NAME[name].torch_dtype for name in FLOATS)


def in_memory(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Resolve the negative bit: the tensor, or a copy whose memory has the negated values.

    Raises:
        ValueError: its memory was freed.
    """
    if tensor.data_ptr() < LEAST_ADDRESS:
        check_memory(name, tensor)
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def plain_address(tensor: torch.Tensor, dtype: torch.dtype) -> int:
    """Address of a tensor for kernels; 0 unless it has this dtype, is contiguous, on the CPU and in memory."""
    if tensor.dtype is not dtype or not tensor.is_cpu or not tensor.is_contiguous() or tensor.is_neg():
        return 0
    address = tensor.data_ptr()
    freed = address < LEAST_ADDRESS and (tensor._is_zerotensor() or not tensor.untyped_storage().data_ptr())
    return 0 if freed else address


def packed_address(packed: torch.Tensor) -> int:
    """Address of a packed weight, which is validated on first use.

    Raises:
        KernelUnavailableError: it is not on the CPU.
        TypeError: it is not contiguous uint8.
        ValueError: it is not a packed weight or damaged, or its memory was freed.
    """
    address = packed.data_ptr()
    if checked_places.get(id(packed)) != address:
        check_packed(packed)
    return address


def check_packed(packed: torch.Tensor) -> None:
    """Validate a packed weight on first use."""
    if not packed.is_cpu:
        raise runtime.KernelUnavailableError(
            f"sparse kernels run on the CPU, got a weight on {packed.device}; move it to 'cpu'"
        )
    if packed.dtype is not torch.uint8 or not packed.is_contiguous() or packed.is_neg():
        raise TypeError(f"the packed weight must be contiguous uint8, got {packed.dtype}; make it with CSR.pack()")
    check_memory("the packed weight", packed)
    runtime.check_packed(packed, packed.data_ptr(), packed.numel())


def refuse(name: str, tensor: torch.Tensor) -> None:
    """Raise the error for a tensor that `float_rows` cannot use."""
    if tensor.device.type != "cpu":
        raise runtime.KernelUnavailableError(
            f"sparse kernels run on the CPU, got {name} on {tensor.device}; move it to 'cpu'"
        )
    if tensor.dtype not in _FLOATS:
        raise TypeError(f"{name} must be one of {', '.join(FLOATS)}, got {tensor.dtype}; convert it with .float()")
    if tensor.dim() == 0:
        raise ValueError(f"{name} must have at least one dimension, got a scalar")


def float_rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if it is contiguous float32, else a copy that is; the last dimension is features.

    Raises for tensors that kernels cannot access.
    """
    is_float = tensor.dtype is torch.float32 and tensor.is_cpu
    if is_float and tensor.is_contiguous() and tensor.dim() and not tensor.is_neg():
        return tensor
    refuse(name, tensor)
    return in_memory(name, tensor).to(torch.float32, memory_format=torch.contiguous_format).contiguous()
