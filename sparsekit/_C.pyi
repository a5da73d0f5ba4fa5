# The native extension; tests/test_stub.py compares this file with the module.
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A CSR: crow_indices, col_indices, values, dtype, scales of int8 values, shape.
CSRTuple = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any], str, NDArray[np.float32] | None, tuple[int, int]]

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
def packing_targets() -> list[str]: ...
def kernels() -> list[tuple[str, int, int]]: ...
def run_peak(rounds: int) -> int: ...
def num_threads() -> int: ...
def set_pool_threads(count: int) -> None: ...
def use_parallel(parallel_for: int, thread_count: int) -> None: ...
def uses_outside_threads() -> bool: ...
def validate_csr(csr: CSRTuple) -> None: ...
def from_dense(dense: NDArray[np.float32]) -> CSRTuple: ...
def to_dense(csr: CSRTuple) -> NDArray[np.float32]: ...
def float_values(csr: CSRTuple) -> NDArray[np.float32]: ...
def pack(
    csr: CSRTuple, dtype: str, height: int, scales: NDArray[np.float32] | None, layout: str
) -> NDArray[np.uint8]: ...
def candidate_layouts(csr: CSRTuple, dtype: str, target: str) -> tuple[str, ...]: ...
def block_height(csr: CSRTuple) -> int: ...
def has_full_blocks(csr: CSRTuple, height: int) -> bool: ...
def with_full_blocks(csr: CSRTuple, height: int) -> CSRTuple: ...
def check_packed(packed: int, packed_bytes: int) -> None: ...
def unpack(packed: NDArray[np.uint8]) -> CSRTuple: ...
def packed_info(packed: NDArray[np.uint8]) -> tuple[int, int, int, str, int, str]: ...
def linear(
    packed: int,
    packed_bytes: int,
    input: int,
    input_features: int,
    input_stride: int,
    tokens: int,
    output: int,
    output_features: int,
    bias: int,
    activation: int,
) -> None: ...
def joined_linear(
    input: int,
    input_features: int,
    input_stride: int,
    tokens: int,
    parts: Sequence[tuple[int, int, int, int, int, int]],
) -> None: ...
def linear_input_gradient(
    packed: int,
    packed_bytes: int,
    input: int,
    input_features: int,
    input_stride: int,
    tokens: int,
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
def check_sampling(temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float) -> None: ...
def sample(
    logits: int,
    vocabulary: int,
    seen: int,
    seen_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int,
    step: int,
) -> tuple[int, float]: ...

class Encoder:
    def __init__(self, data: int, data_bytes: int) -> None: ...
    @property
    def features(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def types(self) -> int: ...
    @property
    def task(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    def run(self, ids: int, types: int, offsets: int, sequences: int, output: int) -> None: ...
    def encode(self, ids: int, types: int, offsets: int, sequences: int, output: int) -> None: ...
