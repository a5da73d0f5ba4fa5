# The native extension; tests/test_stub.py compares this file with the module.
from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray

version: str
build_type: str
compiler: str

class KernelUnavailableError(RuntimeError): ...

class Activation(Enum):
    none = 0
    relu = 1
    gelu = 2
    gelu_tanh = 3
    silu = 4

def available_isas() -> list[str]: ...
def current_isa() -> str: ...
def use_isa(name: str) -> None: ...
def kernels() -> list[tuple[str, int, int]]: ...
def run_peak(rounds: int) -> int: ...
def num_threads() -> int: ...
def set_pool_threads(count: int) -> None: ...
def use_parallel(parallel_for: int, thread_count: int) -> None: ...
def uses_outside_threads() -> bool: ...
def validate_csr(
    crow_indices: NDArray[np.int64],
    col_indices: NDArray[np.int32],
    values: NDArray[np.float32],
    out_features: int,
    in_features: int,
) -> None: ...
def from_dense(dense: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]: ...
def to_dense(
    crow_indices: NDArray[np.int64],
    col_indices: NDArray[np.int32],
    values: NDArray[np.float32],
    out_features: int,
    in_features: int,
) -> NDArray[np.float32]: ...
def pack(
    crow_indices: NDArray[np.int64],
    col_indices: NDArray[np.int32],
    values: NDArray[np.float32],
    out_features: int,
    in_features: int,
    dtype: str,
    height: int,
    scales: NDArray[np.float32] | None,
) -> NDArray[np.uint8]: ...
def full_block_entries(
    crow_indices: NDArray[np.int64],
    col_indices: NDArray[np.int32],
    values: NDArray[np.float32],
    out_features: int,
    in_features: int,
    height: int,
    least_full: float,
) -> int: ...
def with_full_blocks(
    crow_indices: NDArray[np.int64],
    col_indices: NDArray[np.int32],
    values: NDArray[np.float32],
    out_features: int,
    in_features: int,
    height: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]: ...
def check_packed(packed: int, packed_bytes: int) -> None: ...
def packed_scales(packed: NDArray[np.uint8]) -> NDArray[np.float32] | None: ...
def unpack(packed: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]: ...
def packed_info(packed: NDArray[np.uint8]) -> tuple[int, int, int, str, int]: ...
def linear(
    packed: int,
    packed_bytes: int,
    input: int,
    input_features: int,
    input_stride: int,
    batch: int,
    output: int,
    output_features: int,
    bias: int,
    activation: int,
) -> None: ...
def joined_linear(
    input: int,
    input_features: int,
    input_stride: int,
    batch: int,
    parts: Sequence[tuple[int, int, int, int, int, int]],
) -> None: ...
def linear_input_gradient(
    packed: int,
    packed_bytes: int,
    input: int,
    input_features: int,
    input_stride: int,
    batch: int,
    output: int,
    output_features: int,
) -> None: ...
def attention(
    query: int,
    query_shape: Sequence[int],
    query_strides: Sequence[int],
    key: int,
    key_shape: Sequence[int],
    key_strides: Sequence[int],
    value: int,
    value_shape: Sequence[int],
    value_strides: Sequence[int],
    output: int,
    output_shape: Sequence[int],
    output_strides: Sequence[int],
    mask: int,
    mask_shape: Sequence[int],
    mask_strides: Sequence[int],
    mask_of_bytes: bool,
    causal: bool,
    scale: float,
) -> None: ...
def add_layer_norm(
    input: int,
    added: int,
    output: int,
    rows: int,
    features: int,
    weight: int,
    bias: int,
    eps: float,
) -> None: ...
