"""Weights that compressed-tensors quantized: integers, and scales of rows or of groups of input features.

A layer `L` in the format `pack-quantized` has

    L.weight_packed  int32 [rows, words]   codes plus 8 (of int8: plus 128), the first one in the lowest bits, each row
                                           filled up with bits of 0 to a whole number
    L.weight_shape   int64 or int32 [2]    rows, columns
    L.weight_scale   float [rows, groups]  a weight is its code times its scale; one group for scales of rows

and in `int-quantized` its codes in `L.weight`, int8 [rows, columns]; those may be stored as a bit mask. Layers with
zero points (`L.weight_zero_point`) or columns in another order (`L.weight_g_idx`) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sparsekit.formats import CSR
from sparsekit.importers.quantization_schemes import Scheme
from sparsekit.int4_groups import GROUP, groups_of
from sparsekit.io.safetensors_file import is_size

_PACKED, _SCALE, _SHAPE = "weight_packed", "weight_scale", "weight_shape"
#: Arrays of layers that are quantized in ways that are not read.
_REFUSED = ("weight_zero_point", "weight_g_idx", "input_scale", "input_zero_point", "output_scale", "scale_packed")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
#: Least code that kernels of int8 take.
_LEAST_INT8 = -127


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as integers with scales.

    Args:
        codes: int8, shape [out_features, in_features].
        scales: floats, positive and finite, shape [out_features, groups].
        bits: of a code, 4 or 8.
        group_size: input features that have a scale in common.
    """

    codes: NDArray[np.int8]
    scales: torch.Tensor
    bits: int
    group_size: int

    def to_dense(self) -> torch.Tensor:
        """The weight in the type of its scales, rounded to it as compressed-tensors does."""
        scales = self.scales.repeat_interleave(self.group_size, 1)[:, : self.codes.shape[1]]
        return torch.from_numpy(self.codes).to(self.scales.dtype) * scales

    def to_csr(self) -> CSR:
        """The same codes and scales as a sparse weight, without the codes that are 0.

        The code -128 becomes -127, as kernels know no other.

        Raises:
            ValueError: int8 has scales of groups; a scale of int4 is of fewer than 128 input features, or a number that
                float16 does not hold.
        """
        codes = self.codes if self.bits == 4 else np.maximum(self.codes, _LEAST_INT8)
        kept = codes != 0
        crow_indices = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))])
        columns = np.broadcast_to(np.arange(codes.shape[1], dtype=np.int32), codes.shape)[kept]
        shape = codes.shape[0], codes.shape[1]
        return CSR(crow_indices, columns, codes[kept], shape, self._stored_scales())

    def _stored_scales(self) -> NDArray[np.float32]:
        scales: NDArray[np.float32] = self.scales.float().numpy()
        in_features, groups = self.codes.shape[1], scales.shape[1]
        if self.bits == 8:
            if groups != 1:
                raise ValueError(f"int8 weights must have a scale for each row, got {groups}; use read_weights")
            return scales[:, 0]
        if groups == 1:
            return np.repeat(scales, groups_of(in_features), axis=1)
        if self.group_size % GROUP:
            raise ValueError(
                f"int4 weights must have scales of rows or of a multiple of {GROUP} input features, got scales of "
                f"{self.group_size}; use read_weights"
            )
        return np.repeat(scales, self.group_size // GROUP, axis=1)[:, : groups_of(in_features)]


def is_quantized(layer: Mapping[str, torch.Tensor]) -> bool:
    """Whether the tensors of a module, by the last part of their names, are of a quantized weight."""
    return not layer.keys().isdisjoint((_PACKED, _SCALE, _SHAPE, *_REFUSED))


def quantized_weight(
    layer: Mapping[str, torch.Tensor], schemes: Sequence[Scheme]
) -> tuple[QuantizedWeight, dict[str, torch.Tensor]]:
    """The weight of a quantized layer, and its other tensors, such as the bias.

    Args:
        layer: tensors of the module, by the last part of their names.
        schemes: how layers of the model are quantized; the tensors tell which one it is.

    Raises:
        ValueError: tensors are missing, contradict each other or fit no scheme.
    """
    refused = [name for name in _REFUSED if name in layer]
    if refused:
        raise ValueError(f"only symmetric weights with scales are read, got {refused}; dequantize them with the tool "
                         "that made them first")  # fmt: skip
    parts = (_PACKED, _SHAPE, _SCALE) if _PACKED in layer or _SHAPE in layer else ("weight", _SCALE)
    missing = [name for name in parts if name not in layer]
    if missing:
        raise ValueError(f"the arrays {missing} are missing")
    if len(parts) == 3 and "weight" in layer:
        raise ValueError("it must be there once, got it packed and as it is")
    others = {name: tensor for name, tensor in layer.items() if name not in parts}
    codes, bits = _packed_codes(layer, schemes) if len(parts) == 3 else (_plain_codes(layer["weight"]), 8)
    scales = _checked_scales(layer[_SCALE], codes.shape[0])
    return QuantizedWeight(codes, scales, bits, _group_size(codes.shape[1], scales.shape[1], bits, schemes)), others


def _plain_codes(weight: torch.Tensor) -> NDArray[np.int8]:
    if weight.dtype != torch.int8 or weight.dim() != 2 or not weight.numel():
        raise ValueError(f"weight must be torch.int8 of two dimensions, got {weight.dtype} {list(weight.shape)}")
    codes: NDArray[np.int8] = weight.numpy()
    return codes


def _packed_codes(layer: Mapping[str, torch.Tensor], schemes: Sequence[Scheme]) -> tuple[NDArray[np.int8], int]:
    """Codes and their bits, which the number of words in a row tells."""
    packed, sizes = layer[_PACKED], layer[_SHAPE].flatten().tolist()
    if layer[_SHAPE].dtype not in (torch.int64, torch.int32) or len(sizes) != 2 or not all(map(is_size, sizes)):
        raise ValueError(f"{_SHAPE} must hold the int64 numbers of rows and columns, got {sizes!r:.80}")
    rows, columns = sizes
    fitting = [bits for bits in _bits_of(schemes) if tuple(packed.shape) == (rows, -(-columns * bits // 32))]
    if packed.dtype != torch.int32 or len(fitting) != 1 or not packed.numel():
        raise ValueError(
            f"{_PACKED} must be torch.int32 with the codes of {_bits_of(schemes)} bits of {sizes}, got {packed.dtype} "
            f"{list(packed.shape)}"
        )
    return _unpack(packed, fitting[0], columns), fitting[0]


def _bits_of(schemes: Sequence[Scheme]) -> list[int]:
    return sorted({scheme.bits for scheme in schemes})


def _unpack(packed: torch.Tensor, bits: int, columns: int) -> NDArray[np.int8]:
    stored = np.ascontiguousarray(packed.numpy().astype("<i4")).view(np.uint8)
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], axis=2).reshape(len(stored), -1)
    if stored[:, columns:].any():
        raise ValueError(f"{_PACKED} must end with bits of 0 behind the codes of a row")
    codes: NDArray[np.int8] = (stored[:, :columns] - np.uint8(1 << (bits - 1))).view(np.int8)
    return codes


def _checked_scales(scales: torch.Tensor, rows: int) -> torch.Tensor:
    """Scales with a row for each row of the weight."""
    if scales.dtype not in _FLOATS or scales.dim() > 2:
        raise ValueError(f"{_SCALE} must be floats [{rows}, groups], got {scales.dtype} {list(scales.shape)}")
    if scales.numel() == 1:
        scales = scales.reshape(1, 1).expand(rows, 1)
    elif scales.dim() == 1:
        scales = scales[:, None]
    if scales.shape[0] != rows or not scales.shape[1]:
        raise ValueError(f"{_SCALE} must be floats [{rows}, groups], got {list(scales.shape)}")
    if not bool((scales.isfinite() & (scales > 0)).all()):
        raise ValueError(f"{_SCALE} must hold positive and finite numbers only")
    return scales


def _group_size(columns: int, groups: int, bits: int, schemes: Sequence[Scheme]) -> int:
    """Input features that have a scale in common."""
    fitting = {
        columns if scheme.group_size is None else scheme.group_size
        for scheme in schemes
        if scheme.bits == bits and groups == (1 if scheme.group_size is None else -(-columns // scheme.group_size))
    }
    sizes = {min(size, columns) if groups == 1 else size for size in fitting}
    if len(sizes) != 1:
        known = [scheme.group_size for scheme in schemes if scheme.bits == bits]
        raise ValueError(f"{_SCALE} must have the groups of one group_size among {known}, got {groups} for {columns} "
                         "input features")  # fmt: skip
    return sizes.pop()
