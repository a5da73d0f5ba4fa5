"""Write and read compiled models: csrc/model/compiled_file.h has the layout, docs/compiled-model.md the spec."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

#: Alignment of a compiled model and of its tensors, in bytes.
ALIGNMENT = 64
MAGIC, VERSION = b"\x01SPKMODL", 1
#: Layer number of tensors outside the layers.
NO_LAYER = 0xFFFFFFFF

#: Role of a tensor -> its code in the file.
ROLES = {
    "word_embeddings": 1,
    "position_embeddings": 2,
    "type_embeddings": 3,
    "embedding_norm_weight": 4,
    "embedding_norm_bias": 5,
    "embedding_projection": 6,
    "embedding_projection_bias": 7,
    "distance_biases": 8,
    "final_norm_weight": 9,
    "final_norm_bias": 10,
    "rotary": 11,
    "local_rotary": 12,
    "windows": 13,
    "distance_rows": 14,
    "rotary_kinds": 15,
    "query": 16,
    "query_bias": 17,
    "key": 18,
    "key_bias": 19,
    "value": 20,
    "value_bias": 21,
    "attention_output": 22,
    "attention_output_bias": 23,
    "attention_norm_weight": 24,
    "attention_norm_bias": 25,
    "up": 26,
    "up_bias": 27,
    "down": 28,
    "down_bias": 29,
    "output_norm_weight": 30,
    "output_norm_bias": 31,
    "gate": 32,
    "gate_bias": 33,
    "position_key": 34,
    "position_query": 35,
    "query_norm_weight": 36,
    "key_norm_weight": 37,
    "attention_post_norm_weight": 38,
    "feed_forward_post_norm_weight": 39,
    "projection_norm_weight": 48,
    "projection_norm_bias": 49,
    "head_dense": 64,
    "head_dense_bias": 65,
    "classifier": 66,
    "classifier_bias": 67,
    "head_norm_weight": 68,
    "head_norm_bias": 69,
    "head": 70,
    "head_bias": 71,
}
#: Storage of a tensor -> its code.
KINDS = {"floats": 1, "packed": 2, "scaled_rows": 3}
#: Pooling -> its code.
POOLINGS = {None: 0, "mean": 1, "cls": 2, "max": 3}
#: Position of the layer norms in a transformer block -> its code.
BLOCK_ORDERS = {"post_norm": 0, "pre_norm": 1}
#: Task: what a model computes besides hidden states -> its code.
TASKS = {"embedding": 0, "classification": 1, "token_classification": 2}
#: An activation function that only heads have; its code follows those of `runtime.ACTIVATIONS`.
TANH = 5

#: Kind of a decoder's norms -> its code.
NORM_KINDS = {"layer": 0, "rms": 1}

_HEADER = struct.Struct("<8sIIQ44sII52x")
_ENTRY = struct.Struct("<4I2q2Q")


@dataclass(frozen=True)
class EncoderOptions:
    """Options of an encoder that its tensors do not imply, in the order of the header."""

    layout: ClassVar[struct.Struct] = struct.Struct("<4i2f5i")
    model_kind: ClassVar[int] = 0

    layers: int
    head_dim: int
    first_position: int  # index of the first token in the position embeddings
    activation: int  # of `up`, a number of `runtime.ACTIVATIONS`
    norm_eps: float
    attention_scale: float
    pooling: int  # a number of `POOLINGS`
    normalize: int  # 1: vectors have length 1
    block_order: int  # a number of `BLOCK_ORDERS`
    task: int  # a number of `TASKS`
    head_activation: int  # of `head_dense`: a number of `runtime.ACTIVATIONS`, or `TANH`


@dataclass(frozen=True)
class DecoderOptions:
    """Options of a decoder that its tensors do not imply, in the order of the header."""

    layout: ClassVar[struct.Struct] = struct.Struct("<5i5f4x")
    model_kind: ClassVar[int] = 1

    layers: int
    head_dim: int
    activation: int  # of `up`, a number of `runtime.ACTIVATIONS`
    norm: int  # a number of `NORM_KINDS`
    parallel: int  # 1: attention and the feed-forward half of a layer have the same input
    norm_eps: float
    attention_scale: float
    attention_cap: float  # scores become `cap * tanh(score / cap)`; 0 for none
    logit_cap: float  # the same of logits
    embedding_scale: float  # of word embeddings


@dataclass(frozen=True)
class Tensor:
    """A tensor [rows, columns] in the form that a compiled model stores."""

    layer: int
    role: str
    kind: str
    rows: int
    columns: int
    data: NDArray[np.uint8]

    @classmethod
    def of_floats(cls, layer: int, role: str, values: NDArray[np.float32]) -> Tensor:
        """From a float32 vector or matrix."""
        rows, columns = (values.shape[0], 1) if values.ndim == 1 else values.shape
        return cls(layer, role, "floats", rows, columns, _bytes_of(values))

    @classmethod
    def of_scaled_rows(cls, layer: int, role: str, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> Tensor:
        """A table of int8 codes [rows, columns] with a scale for each row, as `quantize_rows` gives them."""
        rows, columns = codes.shape
        data = np.concatenate([_bytes_of(scales.astype("<f4", copy=False)), _bytes_of(codes)])
        return cls(layer, role, "scaled_rows", rows, columns, data)

    @property
    def key(self) -> tuple[int, int]:
        """Sort key."""
        return self.layer, ROLES[self.role]


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _starts(tensors: Sequence[Tensor]) -> tuple[list[int], int]:
    """Offset of each tensor and of the end, aligned to `ALIGNMENT`."""
    starts, end = [], _aligned(_HEADER.size + len(tensors) * _ENTRY.size)
    for tensor in tensors:
        starts.append(end)
        end = _aligned(end + tensor.data.size)
    return starts, end


def _entry(tensor: Tensor, start: int) -> bytes:
    crc = zlib.crc32(tensor.data.data)
    return _ENTRY.pack(*tensor.key, KINDS[tensor.kind], crc, tensor.rows, tensor.columns, start, tensor.data.size)


class CompiledModel:
    """A compiled model in memory, ready to be written.

    Args:
        options: of the model.
        tensors: of the model, in any order.

    `nbytes` is its size, `bits_per_weight` the mean over its matrices, zeros counted as weights.
    """

    def __init__(self, options: EncoderOptions | DecoderOptions, tensors: Sequence[Tensor]) -> None:
        self._tensors = sorted(tensors, key=lambda tensor: tensor.key)
        starts, self.nbytes = _starts(self._tensors)
        matrices = [tensor for tensor in tensors if tensor.columns > 1]
        weights = sum(tensor.rows * tensor.columns for tensor in matrices)
        self.bits_per_weight = 8 * sum(tensor.data.size for tensor in matrices) / weights
        entries = b"".join(map(_entry, self._tensors, starts))
        head = (MAGIC, VERSION, len(starts), self.nbytes)
        packed = options.layout.pack(*astuple(options))
        self._start = _HEADER.pack(*head, packed, zlib.crc32(entries), options.model_kind) + entries

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The file's bytes, as consecutive pieces."""
        for piece in (memoryview(self._start), *(tensor.data.data for tensor in self._tensors)):
            yield piece
            yield bytes(_aligned(len(piece)) - len(piece))

    def in_memory(self) -> NDArray[np.uint8]:
        """The file's bytes in one aligned buffer."""
        buffer = aligned_buffer(self.nbytes)
        end = 0
        for piece in self.pieces():
            buffer.data[end : end + len(piece)] = piece
            end += len(piece)
        return buffer


def stored_tensors(compiled: NDArray[np.uint8]) -> list[Tensor]:
    """Tensors of a compiled model, as views of its buffer.

    Args:
        compiled: a compiled model that the core has validated, for example in `runtime.CompiledEncoder`.
    """
    roles, kinds = ({number: name for name, number in table.items()} for table in (ROLES, KINDS))
    count = _HEADER.unpack_from(compiled.data)[2]
    found = []
    for place in range(count):
        entry = _ENTRY.unpack_from(compiled.data, _HEADER.size + place * _ENTRY.size)
        layer, role, kind, _, rows, columns, start, size = entry
        found.append(Tensor(layer, roles[role], kinds[kind], rows, columns, compiled[start : start + size]))
    return found


def aligned_buffer(nbytes: int) -> NDArray[np.uint8]:
    """Allocate `nbytes` bytes aligned to `ALIGNMENT`: uint8, shape [nbytes]."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    skipped = -memory.ctypes.data % ALIGNMENT
    return memory[skipped : skipped + nbytes]


def read_compiled(file: Path, mmap: bool) -> NDArray[np.uint8]:
    """The bytes of a file, uint8, aligned: memory-mapped, or read into memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was truncated while it was read.
    """
    size = file.stat().st_size
    if mmap and size:
        return np.memmap(file, np.uint8, "r")
    buffer = aligned_buffer(size)
    with file.open("rb") as opened:
        if opened.readinto(buffer.data) != size:
            raise ValueError(f"{file} was cut off while it was read; write it by rename")
    return buffer
