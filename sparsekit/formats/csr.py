"""Compressed sparse rows (CSR): the format of weights on disk and in every API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import _C, runtime
from sparsekit.formats.csr_arrays import floats, integers, scales_array, stored_values
from sparsekit.formats.dtypes import BY_NAME, WEIGHT_DTYPES, weight_dtype
from sparsekit.formats.quantization import SCALE_METHODS, scales_shape
from sparsekit.formats.tensors import as_array

if TYPE_CHECKING:
    import scipy.sparse
    import torch


#: Block sizes of the kernels, with their height: 4x1 is four adjacent output features with entries in the same columns.
BLOCKS = {"1x1": 1, "4x1": 4}


def _height(block: str) -> int:
    if block not in BLOCKS:
        raise ValueError(f"block must be one of {', '.join(BLOCKS)}, got {block!r}")
    return BLOCKS[block]


@dataclass(frozen=True, eq=False)
class CSR:
    """A sparse weight in compressed sparse rows, validated when it is created.

    Values keep their stored type; `float_values` converts them to float32.

    Args:
        crow_indices: int64, shape [out_features + 1]; row `r` owns the entries `crow_indices[r]:crow_indices[r + 1]`.
        col_indices: int32, shape [nnz]; strictly increasing within a row.
        values: shape [nnz]: float32, float16, int8, or the bits of bfloat16 as uint16, which numpy lacks. Other float
            types are converted to float32.
        shape: (out_features, in_features).
        scales: scales of int8 values, float32, shape [out_features]: a weight is its value times the scale of its row.
            With scales of shape [out_features, groups], exact in float16, the values are int4, -8 to 7; a group is 128
            input features of a row.

    Raises:
        TypeError: an array has a wrong number of dimensions or a wrong type.
        ValueError: the arrays are not a well-formed CSR matrix of this shape, int8 values lack scales, or other values
            have some.

    >>> weight = CSR.from_dense(np.array([[0.0, 2.0], [-1.0, 0.0]], dtype=np.float32))
    >>> weight.nnz, weight.sparsity
    (2, 0.5)
    >>> weight.col_indices
    array([1, 0], dtype=int32)
    """

    crow_indices: NDArray[np.int64]
    col_indices: NDArray[np.int32]
    values: NDArray[Any]
    shape: tuple[int, int]
    scales: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "crow_indices", integers("crow_indices", self.crow_indices, np.int64))
        object.__setattr__(self, "col_indices", integers("col_indices", self.col_indices, np.int32))
        object.__setattr__(self, "values", stored_values(self.values))
        if (self.values.dtype == np.int8) != (self.scales is not None):
            found = "none" if self.scales is None else f"some with {self.values.dtype} values"
            raise ValueError(f"int8 and int4 values, and no others, have scales; got {found}")
        if self.scales is not None:
            object.__setattr__(self, "scales", scales_array(self.scales))
        out_features, in_features = self.shape
        object.__setattr__(self, "shape", (int(out_features), int(in_features)))
        self.validate()

    def validate(self) -> None:
        """Check the arrays again, as when the matrix was created.

        Raises:
            ValueError: they are not a well-formed CSR matrix; the message says what was expected and found.
        """
        _C.validate_csr(self._tuple)

    @property
    def _tuple(self) -> _C.CSRTuple:
        """Arguments of the native core."""
        scales = None if self.scales is None else self.scales.astype(np.float32, copy=False)
        return self.crow_indices, self.col_indices, self.values, self.dtype, scales, self.shape

    @classmethod
    def _of_tuple(cls, csr: _C.CSRTuple) -> CSR:
        crow_indices, col_indices, values, _, scales, shape = csr
        return cls(crow_indices, col_indices, values, shape, scales)

    @property
    def dtype(self) -> str:
        """Type of the stored weights: "float32", "bfloat16", "float16", "int8" or "int4"."""
        if self.scales is not None:
            return "int8" if self.scales.ndim == 1 else "int4"
        return next(name for name in WEIGHT_DTYPES if BY_NAME[name].numpy == self.values.dtype)

    def float_values(self) -> NDArray[np.float32]:
        """Values as float32, shape [nnz]; int8 and int4 are dequantized."""
        values: NDArray[np.float32] = self.values if self.dtype == "float32" else _C.float_values(self._tuple)
        return values

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.shape[0]

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.shape[1]

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.values.size

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are not stored; 0 for an empty weight."""
        size = self.out_features * self.in_features
        return 1.0 - self.nnz / size if size else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        scales = 0 if self.scales is None else self.scales.nbytes
        return self.crow_indices.nbytes + self.col_indices.nbytes + self.values.nbytes + scales

    @classmethod
    def from_dense(cls, weight: NDArray[np.floating[Any]]) -> CSR:
        """CSR of all nonzero weights (NaN is kept).

        Args:
            weight: floats, shape [out_features, in_features]; computed in float32.

        Raises:
            TypeError: `weight` is not two-dimensional or not floating point.
        """
        return cls._of_tuple(_C.from_dense(floats("weight", weight, 2)))

    def to_dense(self) -> NDArray[np.float32]:
        """The dense weight, float32, shape [out_features, in_features]."""
        return _C.to_dense(self._tuple)

    def rows(self, rows: slice | NDArray[np.int64]) -> CSR:
        """Select rows as a new weight; values keep their type.

        Args:
            rows: row indices, or a slice without a step.

        Raises:
            IndexError: an index is out of range.
            ValueError: the slice has a step.
        """
        if not isinstance(rows, slice):
            return self._numbered_rows(rows)
        first, last, step = rows.indices(self.out_features)
        if step != 1:
            raise ValueError(f"rows must follow one another, got a step of {step}")
        crow_indices = self.crow_indices[first : max(first, last) + 1]
        entries = slice(crow_indices[0], crow_indices[-1])
        return CSR(
            crow_indices - crow_indices[0],
            self.col_indices[entries],
            self.values[entries],
            (len(crow_indices) - 1, self.in_features),
            None if self.scales is None else self.scales[rows],
        )

    def _numbered_rows(self, rows: NDArray[np.int64]) -> CSR:
        lengths = np.diff(self.crow_indices)[rows]
        crow_indices = np.concatenate([[0], np.cumsum(lengths)])
        moved = np.repeat(self.crow_indices[:-1][rows] - crow_indices[:-1], lengths)
        entries = np.arange(crow_indices[-1]) + moved
        return CSR(
            crow_indices,
            self.col_indices[entries],
            self.values[entries],
            (len(rows), self.in_features),
            None if self.scales is None else self.scales[rows],
        )

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> CSR:
        """CSR of any two-dimensional SciPy sparse matrix or array; columns are sorted and duplicates summed.

        Raises:
            TypeError: `matrix` is not a SciPy sparse matrix.
        """
        if not hasattr(matrix, "tocsr"):
            raise TypeError(
                f"expected a SciPy sparse matrix, got {type(matrix).__name__}; use CSR.from_dense for arrays"
            )
        csr = matrix.tocsr()
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        return cls(csr.indptr, csr.indices, csr.data, shape=csr.shape)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """`scipy.sparse.csr_array` of float32, which shares the values if they are float32."""
        import scipy.sparse

        return scipy.sparse.csr_array((self.float_values(), self.col_indices, self.crow_indices), shape=self.shape)

    @classmethod
    def from_torch(cls, weight: torch.Tensor) -> CSR:
        """CSR of a two-dimensional torch tensor, dense or `torch.sparse_csr`, of any floating-point type.

        Raises:
            TypeError: `weight` has another layout or type.
            ValueError: its sparse arrays are malformed.
        """
        import torch

        tensor = weight.detach().cpu()
        if tensor.layout == torch.sparse_csr:
            parts = tensor.crow_indices(), tensor.col_indices(), tensor.values()
            crow_indices, col_indices, values = (as_array("weight", part) for part in parts)
            return cls(crow_indices, col_indices, values, shape=(tensor.shape[0], tensor.shape[1]))
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise TypeError(f"expected a dense or CSR float tensor, got {tensor.dtype} with layout {tensor.layout}")
        return cls.from_dense(as_array("weight", tensor))

    def to_torch(self) -> torch.Tensor:
        """The weight as a `torch.sparse_csr` tensor of float32 with 64-bit indices."""
        import torch

        return torch.sparse_csr_tensor(
            torch.from_numpy(self.crow_indices),
            torch.from_numpy(self.col_indices.astype(np.int64)),
            torch.from_numpy(self.float_values()),
            size=self.shape,
            check_invariants=False,  # already checked
        )

    def with_full_blocks(self, block: str = "4x1") -> CSR:
        """The same weight with partial blocks filled up with stored zeros.

        Raises:
            ValueError: `block` is unknown.
        """
        return self._of_tuple(_C.with_full_blocks(self._tuple, _height(block)))

    def has_full_blocks(self, block: str = "4x1") -> bool:
        """Whether all blocks are full: the rows of a block have entries in the same columns.

        Raises:
            ValueError: `block` is unknown.
        """
        return _C.has_full_blocks(self._tuple, _height(block))

    def block(self) -> str:
        """Block size that kernels use for the weight: "4x1" if at least 95% of the places in its blocks are stored.

        Missing rows of an incomplete last block count as places.

        >>> CSR.from_dense(np.tile(np.eye(2, dtype=np.float32).repeat(4, axis=0), 3)).block()
        '4x1'
        """
        return f"{_C.block_height(self._tuple)}x1"

    def layouts(self, dtype: str | torch.dtype = "float32", target: str = "native") -> tuple[str, ...]:
        """Candidate layouts for instruction sets, the preferred one first.

        A layout that is best for every number of tokens is the only one.

        Args:
            dtype: type of the stored weights, as in `pack`.
            target: "native" for the instruction set in use, or another name of `runtime.packing_targets`.

        Raises:
            ValueError: an argument is unknown.
        """
        return _C.candidate_layouts(self._tuple, weight_dtype(dtype), target)

    def pack(
        self,
        dtype: str | torch.dtype = "float32",
        *,
        scale_method: str = "absmax",
        scales: NDArray[np.float32] | None = None,
        block: str | None = None,
        layout: str | None = None,
        target: str = "native",
    ) -> runtime.Packed:
        """Pack the weight into a kernel layout, one self-describing buffer.

        Args:
            dtype: type of the stored weights, by name or as a torch dtype: "float32"; "bfloat16" or "float16", rounded
                to nearest, which only save memory; "int8", with a scale for each row, where the layouts "sell" and
                "dense" quantize inputs too; or "int4", with a scale for each group of 128 input features of a row and
                inputs quantized group by group, only in the layout "dense". Values already of this type keep their
                scales.
            scale_method: how to choose scales, a name of `quantization.SCALE_METHODS`.
            scales: scales to use, float32, shape [out_features] for int8, [out_features, groups] for int4.
            block: "1x1" or "4x1", which stores zeros in partial blocks; None to detect the weight's blocks (see
                `block`).
            layout: "sell" (SELL-C-sigma), "csr" (CSR in column blocks), "bitmask" (the same with a bit for each column,
                not for 4x1 blocks) or "dense" (with zeros; no blocks, no gradients); None for the first of `layouts`.
                Every instruction set supports all layouts.
            target: as in `layouts`.

        Raises:
            ValueError: an argument is unknown or does not fit; the weight has 2^32 nonzeros or more; for float16, a
                value exceeds 65,504; for int8 and int4, a value is not finite; for int8, a row has more than 66,311
                nonzeros.
        """
        dtype = weight_dtype(dtype)
        found = self._scales_for(dtype, scale_method, scales) if dtype in ("int8", "int4") else None
        layout = self.layouts(dtype, target)[0] if layout is None else layout
        return _C.pack(self._tuple, dtype, 0 if block is None else _height(block), found, layout)

    def _scales_for(self, dtype: str, method: str, scales: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if method not in SCALE_METHODS:
            raise ValueError(f"scale_method must be one of {', '.join(SCALE_METHODS)}, got {method!r}")
        kept = self.scales if self.dtype == dtype else None
        if scales is None:
            return SCALE_METHODS[method](self, dtype) if kept is None else kept.astype(np.float32, copy=False)
        if kept is not None:
            raise ValueError(f"{dtype} values have scales, which stay; pack them without others")
        expected = scales_shape(dtype, self.shape)
        found = floats("scales", scales, len(expected))
        if found.shape != expected:
            names = "out_features" if dtype == "int8" else "out_features, groups"
            raise ValueError(f"scales must have shape [{names}] = {list(expected)}, got {list(found.shape)}")
        return found

    @classmethod
    def unpack(cls, packed: runtime.Packed) -> CSR:
        """Unpack a buffer of `pack`; values keep their stored type.

        Raises:
            ValueError: the buffer is not a packed weight.
        """
        return cls._of_tuple(_C.unpack(packed))

    def matmul(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute `weight @ x`. Packs the weight in each call: to avoid that, `pack` once and call `runtime.linear`.

        Args:
            x: float32, shape [in_features] or [in_features, n].

        Returns:
            float32, shape [out_features] or [out_features, n].

        Raises:
            TypeError: `x` is not float32.
            ValueError: its shape does not fit.
        """
        if x.ndim not in (1, 2):
            raise ValueError(f"x must have shape [{self.in_features}] or [{self.in_features}, n], got {x.shape}")
        return runtime.linear(x.T, self.pack()).T

    __matmul__ = matmul
