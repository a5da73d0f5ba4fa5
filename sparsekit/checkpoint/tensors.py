"""A model's tensors by name, and conversion between tensors and stored bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sparsekit.folder.manifest import ArrayEntry
from sparsekit.formats.dtypes import BY_NAME, DType, dtype_name


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and persistent buffers; shared ones appear under each of their names."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        kept = {key: buffer for key, buffer in module._buffers.items() if key not in module._non_persistent_buffers_set}
        for key, tensor in {**module._parameters, **kept}.items():
            if tensor is not None:
                yield (f"{prefix}.{key}" if prefix else key), tensor


def without_shared(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of the model without duplicates: name -> tensor, and for shared memory further name -> first name."""
    found: dict[str, torch.Tensor] = {}
    first: dict[object, str] = {}
    shared = {}
    for name, tensor in named_tensors(model):
        has_memory = tensor.numel() > 0 and not tensor.is_meta
        where = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if has_memory else id(tensor)
        if where in first:
            shared[name] = first[where]
        else:
            first[where] = name
            found[name] = tensor
    return found, shared


def storable(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the form that files store: plain, contiguous, on the CPU, with its own memory.

    Raises:
        TypeError: files cannot store tensors of this kind.
        ValueError: the tensor is on the meta device.
    """
    if type(tensor) not in (torch.Tensor, nn.Parameter) or dtype_name(tensor.dtype) not in BY_NAME:
        raise TypeError(f"{name} is a {type(tensor).__name__} of {tensor.dtype}, which a model folder cannot hold")
    if tensor.is_meta:
        raise ValueError(f"{name} is on meta and has no values; load them first")
    plain = tensor.detach().cpu().contiguous()
    is_view = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
    return plain.clone() if is_view else plain


def entry_of(tensor: torch.Tensor) -> ArrayEntry:
    """Dtype, shape and checksum of a tensor returned by `storable`."""
    raw = tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else np.zeros(0, np.uint8)
    return ArrayEntry(
        BY_NAME[dtype_name(tensor.dtype)].safetensors, tuple(tensor.shape), hashlib.sha256(raw.data).hexdigest()
    )


def to_tensor(name: str, raw: NDArray[np.uint8], dtype: DType, shape: Sequence[int]) -> torch.Tensor:
    """A tensor from raw bytes, sharing their memory.

    Raises:
        ValueError: the dtype is bool, and a byte is neither 0 nor 1.
    """
    if dtype.name == "bool" and raw.size and raw.max() > 1:
        raise ValueError(f"array {name!r} must hold 0 and 1 only, got {raw.max()}")
    if not raw.size:  # torch cannot view an empty tensor as another dtype
        return torch.empty(tuple(shape), dtype=dtype.torch_dtype)
    return torch.from_numpy(raw).view(dtype.torch_dtype).reshape(tuple(shape))
