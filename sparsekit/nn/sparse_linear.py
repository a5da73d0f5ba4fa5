"""`SparseLinear`: a drop-in for `torch.nn.Linear` at inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from sparsekit import ops, runtime
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import weight_dtype
from sparsekit.formats.tensors import as_array, values_array, values_tensor
from sparsekit.introspect.dense_classes import is_conv1d, is_conv1d_class, new_dense, why_not_linear
from sparsekit.introspect.int4_scales import kept_scales
from sparsekit.nn.absent_weight import absent_weight

_WEIGHT_KEYS = ("crow_indices", "col_indices", "values")


def _no_nonzeros(out_features: int, in_features: int) -> torch.Tensor:
    """A packed weight of zeros."""
    crow_indices = np.zeros(out_features + 1, np.int64)
    empty = CSR(crow_indices, np.zeros(0, np.int32), np.zeros(0, np.float32), shape=(out_features, in_features))
    return torch.from_numpy(empty.pack())


class SparseLinear(nn.Module):
    """Linear layer with a frozen sparse weight: `activation(input @ weight.T + bias)`.

    The packed weight is the only copy in memory. State dicts have the weight as CSR (`crow_indices`, `col_indices`,
    `values`), independent of the kernels' layout. Gradients flow to the input and the bias. float16 and bfloat16 inputs
    are computed in float32; the output has the input's type.

    Args:
        in_features: size of the input's last dimension.
        out_features: size of the output's last dimension.
        bias: whether to add a bias.
        activation: None, "relu", "gelu", "gelu_tanh" or "silu", applied to the result.
        packed: the weight from `CSR.pack`, uint8; None: no nonzeros, to load a state dict into.

    Create a layer from a weight with `from_linear` or `from_csr`.

    >>> linear = nn.Linear(3, 2)
    >>> _ = linear.weight.data[:, 1:].zero_()
    >>> sparse = SparseLinear.from_linear(linear)
    >>> sparse
    SparseLinear(in_features=3, out_features=2, bias=True, nnz=2, sparsity=0.667)
    >>> bool(torch.allclose(sparse(torch.ones(5, 3)), linear(torch.ones(5, 3))))
    True
    """

    packed: torch.Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str | None = None,
        packed: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        runtime.activation_code(activation)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = None if activation == "none" else activation
        self.weight_dtype = torch.float32  # of the dense layer that to_linear makes
        self.dense_class: type[nn.Module] = nn.Linear  # likewise
        self.chosen_layout: str | None = None  # in which loaded weights are packed too; None: each in the preferred one
        self._is_turned = False  # whether that one holds its weight as [in_features, out_features]
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("packed", _no_nonzeros(out_features, in_features) if packed is None else packed, False)

    @classmethod
    def from_csr(
        cls,
        weight: CSR,
        bias: torch.Tensor | None = None,
        activation: str | None = None,
        dtype: str | torch.dtype = "float32",
        *,
        scale_method: str = "absmax",
        scales: NDArray[np.float32] | None = None,
        block: str | None = None,
        layout: str | None = None,
    ) -> SparseLinear:
        """Create a layer from a weight and a copy of `bias`, shape [out_features]; see `CSR.pack` for the rest.

        An explicit `layout` is kept when a state dict is loaded.

        Raises:
            ValueError: the bias has a wrong shape, an argument is unknown, or the type cannot hold the weight.
        """
        packed = weight.pack(dtype, scale_method=scale_method, scales=scales, block=block, layout=layout)
        layer = cls(weight.in_features, weight.out_features, bias is not None, activation, torch.from_numpy(packed))
        layer.chosen_layout = layout
        if bias is not None:
            if bias.shape != (weight.out_features,):
                raise ValueError(f"bias must have shape [{weight.out_features}], got {list(bias.shape)}")
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    @classmethod
    def from_linear(
        cls,
        linear: nn.Module,
        activation: str | None = None,
        dtype: str | torch.dtype = "float32",
        *,
        scale_method: str = "absmax",
        scales: NDArray[np.float32] | None = None,
        block: str | None = None,
        layout: str | None = None,
    ) -> SparseLinear:
        """Create a layer from the nonzero weights of a dense one, which is not changed.

        Args:
            linear: the dense layer: an `nn.Linear`, a class derived from it that computes the same, or transformers'
                `Conv1D`, whose weight is [in_features, out_features].
            activation: None, "relu", "gelu", "gelu_tanh" or "silu", applied to the result.
            dtype: type of the stored weights: "float32"; "bfloat16" or "float16", which only save memory; "int8" with a
                scale for each row, or "int4" with one for each group. Inputs are then quantized dynamically and
                multiplied as integers, infinities and NaN are refused, and the input gets no gradient. In the layout
                "csr", which AVX2 prefers from 75% zeros, int8 weights are multiplied as floats instead.
            scale_method: for int8: "absmax" (nothing is clipped), "percentile" or "mse".
            scales: scales to use, see `CSR.pack`.
            block: "1x1", "4x1" or None to detect the weight's blocks: see `CSR.pack`.
            layout: name of a layout, or None for the one that the instruction set in use prefers: see `CSR.pack`. An
                explicit layout is kept when a state dict is loaded.

        Raises:
            TypeError: `linear` is not such a layer or its weight is not floating point.
            ValueError: an argument is unknown, or the type cannot hold the weight.
        """
        reason = type(linear).__name__
        if isinstance(linear, nn.Linear) or is_conv1d(linear):
            reason = why_not_linear(linear)
        if reason:
            raise TypeError(f"expected a torch.nn.Linear, got {reason}")
        dense: Any = linear
        weight = dense.weight.T if is_conv1d(linear) else dense.weight
        kept = kept_scales(linear) if scales is None and weight_dtype(dtype) == "int4" else None
        layer = cls.from_csr(
            CSR.from_torch(weight),
            dense.bias,
            activation,
            dtype,
            scale_method=scale_method,
            scales=scales if kept is None else as_array("scales", kept),
            block=block,
            layout=layout,
        )
        if layer.bias is not None:
            layer.bias.requires_grad_(dense.bias.requires_grad)
        layer.stand_for(linear)
        return layer.train(linear.training)

    @classmethod
    def like(cls, linear: nn.Module) -> SparseLinear:
        """Layer with a dense one's shape and no nonzeros, to load a state dict into."""
        dense: Any = linear
        out_features, in_features = dense.weight.T.shape if is_conv1d(linear) else dense.weight.shape
        layer = cls(in_features, out_features, dense.bias is not None)
        layer.stand_for(linear)
        return layer.train(linear.training)

    def stand_for(self, dense: nn.Module) -> None:
        """Record the class and weight type that `to_linear` restores, from a dense or sparse layer."""
        if isinstance(dense, SparseLinear):
            self.dense_class, self.weight_dtype = dense.dense_class, dense.weight_dtype
        else:
            self.dense_class = parametrize.type_before_parametrizations(dense)
            self.weight_dtype = dense.weight.dtype  # type: ignore[assignment]
        self._is_turned = is_conv1d_class(self.dense_class)

    def to_csr(self) -> CSR:
        """Unpack the weight to CSR."""
        return CSR.unpack(self.packed.numpy(force=True))

    def to_linear(self) -> Any:
        """Dense layer with the same weight and bias, in the class and type of the layer that this one was created from.

        That is `nn.Linear`, a class derived from it, or transformers' `Conv1D`.

        Raises:
            ValueError: the layer has a fused activation function, which `nn.Linear` does not.
        """
        if self.activation is not None:
            raise ValueError(f"nn.Linear has no activation function; this layer fuses {self.activation!r}")
        linear = new_dense(self.dense_class, self.in_features, self.out_features, self.bias is not None)
        weight = torch.from_numpy(self.to_csr().to_dense()).to(self._dense_dtype)
        linear.weight = nn.Parameter(weight.T.contiguous() if self._is_turned else weight)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=self.bias.requires_grad)
        return linear.train(self.training)

    @property
    def _dense_dtype(self) -> torch.dtype:
        """Type of the dense layer that this one replaces; follows `module.to` through the bias."""
        return self.weight_dtype if self.bias is None else self.bias.dtype

    @property
    def weight(self) -> torch.Tensor:
        """Shape, dtype and device of the dense weight, for code that reads them; using values raises RuntimeError.

        It is not a parameter: `to_csr` and `to_linear` give the values.
        """
        shape = self.out_features, self.in_features
        return absent_weight(shape[::-1] if self._is_turned else shape, self._dense_dtype, self.packed.device)

    @property
    def nnz(self) -> int:
        """Number of nonzero weights."""
        return runtime.packed_info(self.packed.numpy(force=True)).nnz

    @property
    def dtype(self) -> str:
        """Type of the stored weights: "float32", "bfloat16", "float16" or "int8"."""
        return runtime.packed_info(self.packed.numpy(force=True)).dtype

    @property
    def block(self) -> str:
        """Shape of the blocks that the kernels use: "1x1" or "4x1"."""
        return runtime.packed_info(self.packed.numpy(force=True)).block

    @property
    def layout(self) -> str:
        """Packed layout, a name as in `CSR.pack`."""
        return runtime.packed_info(self.packed.numpy(force=True)).layout

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are zero."""
        size = self.in_features * self.out_features
        return 1.0 - self.nnz / size if size else 0.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`activation(input @ weight.T + bias)`; see `sparsekit.ops.linear`."""
        return ops.linear(input, self.packed, self.bias, self.out_features, self.activation)

    def extra_repr(self) -> str:
        """Sizes and sparsity, as `print(model)` shows them."""
        text = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        fused = "" if self.activation is None else f", activation={self.activation!r}"
        if self.packed.is_meta:
            return f"{text}{fused}"
        dtype = "" if self.dtype == "float32" else f", dtype={self.dtype!r}"
        block = "" if self.block == "1x1" else f", block={self.block!r}"
        layout = "" if self.chosen_layout is None else f", layout={self.chosen_layout!r}"
        return f"{text}, nnz={self.nnz}, sparsity={self.sparsity:.3f}{dtype}{block}{layout}{fused}"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = self.to_csr()
        destination[prefix + "crow_indices"] = torch.from_numpy(weight.crow_indices)
        destination[prefix + "col_indices"] = torch.from_numpy(weight.col_indices)
        destination[prefix + "values"] = values_tensor(weight.values)
        if weight.scales is not None:
            destination[prefix + "scales"] = torch.from_numpy(weight.scales)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        keys = (*_WEIGHT_KEYS, "scales")
        found = {key: state_dict[prefix + key] for key in keys if prefix + key in state_dict}
        rest = {key: value for key, value in state_dict.items() if key.removeprefix(prefix) not in keys}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        absent = [prefix + key for key in _WEIGHT_KEYS if key not in found]
        if absent:
            missing_keys.extend(absent)
            return
        try:
            packed = _pack_state(found, (self.out_features, self.in_features), self.chosen_layout)
        except (TypeError, ValueError) as error:
            error_msgs.append(f"weight of {prefix.rstrip('.') or 'the layer'}: {error}")
            return
        device = "cpu" if self.packed.is_meta else self.packed.device
        self.packed = torch.from_numpy(packed).to(device)


def _pack_state(state: dict[str, torch.Tensor], shape: tuple[int, int], layout: str | None) -> runtime.Packed:
    """Pack a weight from a state dict's arrays, in the type of its values."""
    crow_indices, col_indices = (as_array(key, state[key]) for key in ("crow_indices", "col_indices"))
    scales = as_array("scales", state["scales"]) if "scales" in state else None
    weight = CSR(crow_indices, col_indices, values_array("values", state["values"]), shape, scales)
    return weight.pack(weight.dtype, layout=layout)
