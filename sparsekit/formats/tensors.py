"""Convert torch tensors to numpy arrays. torch is imported only if there is a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def check_memory(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError for a tensor whose memory was freed, since reading it would crash.

    FSDP and `untyped_storage().resize_(0)` free memory; torch's zero tensors have none.
    """
    if tensor.numel() and (tensor._is_zerotensor() or not tensor.untyped_storage().data_ptr()):
        raise ValueError(
            f"{name} has {tensor.numel()} numbers and no memory: it was freed; fill the tensor again first"
        )


def as_array(name: str, tensor: Any) -> NDArray[Any]:
    """Convert a dense tensor to an array; float types that numpy lacks, such as bfloat16, become float32.

    Raises:
        TypeError: it is not a dense tensor.
        ValueError: it has no values: it is on meta, or its memory was freed.
    """
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        found = f"layout {tensor.layout}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a dense tensor, got {found}")
    if tensor.is_meta:
        raise ValueError(f"{name} is on meta and has no values; load them first")
    plain = tensor.detach().cpu()
    check_memory(name, plain)
    lacks = plain.is_floating_point() and plain.dtype not in (torch.float16, torch.float32, torch.float64)
    array: NDArray[Any] = (plain.float() if lacks else plain).numpy(force=True)
    return array


def values_array(name: str, tensor: Any) -> NDArray[Any]:
    """Convert a stored weight's values without rounding: bfloat16 becomes its bits, uint16.

    Raises:
        TypeError: it is not a dense tensor.
        ValueError: it has no values: it is on meta, or its memory was freed.
    """
    import torch

    if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.bfloat16 and tensor.layout is torch.strided:
        return as_array(name, tensor.detach().view(torch.int16)).view(np.uint16)
    return as_array(name, tensor)


def values_tensor(values: NDArray[Any]) -> torch.Tensor:
    """Inverse of `values_array`, sharing its memory."""
    import torch

    if values.dtype == np.uint16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)
