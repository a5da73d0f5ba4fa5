"""Compiled models that break one rule of docs/compiled-model.md each, with valid checksums, are refused."""

import ctypes
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import encoder

from sparsekit import finalize, prune
from sparsekit.engine import Encoder, compile_model
from sparsekit.engine.compiled_file import (
    KINDS,
    NO_LAYER,
    ROLES,
    CompiledModel,
    EncoderOptions,
    Tensor,
    aligned_buffer,
)

START = struct.Struct("<8sIIQ4i2f5iII52x")
ENTRY = struct.Struct("<4I2q2Q")
OPTIONS = [field.name for field in fields(EncoderOptions)]
#: Fields of the header, of an entry, and of a packed weight's header from byte 16 on.
HEADER = ["magic", "version", "tensors", "total", *OPTIONS, "entries_crc", "model_kind"]
FIELDS = ["layer", "role", "kind", "crc", "rows", "columns", "start", "size"]
PACKED = ["out_features", "in_features", "nnz", "entries", "column_blocks", "slice_offsets", "row_lengths"]
PACKED += ["slot_to_row", "row_to_slot", "values", "columns", "total", "scales", "row_sums"]
#: Where `make native` leaves the C interface.
LIBRARY = Path(__file__).parents[2] / "build" / "release" / "libsparsekit.so"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "model"
    encoder("bert").save_pretrained(folder)
    return compile_model(folder, pooling="mean", embeddings="int8").tobytes()


@dataclass
class Forged:
    """A compiled model in parts that tests can change; `bytes` recomputes all checksums that were not changed."""

    header: dict
    entries: list[dict]
    data: bytearray
    wrong: str = ""  # which checksum stays as it is

    @classmethod
    def of(cls, good: bytes) -> "Forged":
        header = dict(zip(HEADER, START.unpack_from(good), strict=True))
        places = range(START.size, START.size + ENTRY.size * header["tensors"], ENTRY.size)
        entries = [dict(zip(FIELDS, ENTRY.unpack_from(good, place), strict=True)) for place in places]
        return cls(header, entries, bytearray(good))

    def entry(self, role: str, layer: int = NO_LAYER) -> dict:
        return next(one for one in self.entries if (one["layer"], one["role"]) == (layer, ROLES[role]))

    def tensor(self, role: str, layer: int = NO_LAYER) -> np.ndarray:
        entry = self.entry(role, layer)
        return np.frombuffer(self.data, np.uint8, entry["size"], entry["start"])

    def bytes(self) -> bytes:
        for entry in self.entries:
            if entry["start"] + entry["size"] <= len(self.data) and self.wrong != "crc":
                entry["crc"] = zlib.crc32(self.data[entry["start"] : entry["start"] + entry["size"]])
        entries = b"".join(ENTRY.pack(*entry.values()) for entry in self.entries)
        if self.wrong != "entries_crc":
            self.header["entries_crc"] = zlib.crc32(entries)
        made = bytearray(self.data)
        made[: START.size + len(entries)] = START.pack(*self.header.values()) + entries
        return bytes(made)


def tensors_of(good: bytes) -> tuple[EncoderOptions, list[Tensor]]:
    """The tensors of a compiled model."""
    model = Forged.of(good)
    options = EncoderOptions(*(model.header[name] for name in OPTIONS))
    roles = {number: name for name, number in ROLES.items()}
    kinds = {number: name for name, number in KINDS.items()}
    found = [
        Tensor(
            entry["layer"],
            roles[entry["role"]],
            kinds[entry["kind"]],
            entry["rows"],
            entry["columns"],
            np.frombuffer(good, np.uint8, entry["size"], entry["start"]),
        )
        for entry in model.entries
    ]
    return options, found


def native_error(data: bytes) -> str | None:
    """Error message of the C interface; None if it opens the model."""
    library = ctypes.CDLL(str(LIBRARY))
    library.sparsekit_open_memory.restype = ctypes.c_void_p
    buffer = aligned_buffer(len(data))
    buffer.data[:] = data
    text = ctypes.create_string_buffer(400)
    arguments = ctypes.c_void_p(buffer.ctypes.data), ctypes.c_size_t(buffer.size), text, ctypes.c_size_t(len(text))
    model = library.sparsekit_open_memory(*arguments)
    if model is None:
        return text.value.decode()
    library.sparsekit_close(ctypes.c_void_p(model))
    return None


def refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    for mmap in (True, False):
        with pytest.raises(ValueError, match=message) as caught:
            Encoder(path, mmap=mmap)
    if LIBRARY.exists():
        assert native_error(data) == str(caught.value)


def test_the_file_is_good_before_anything_is_done_to_it(good, tmp_path):
    assert Forged.of(good).bytes() == good
    assert CompiledModel(*tensors_of(good)).in_memory().tobytes() == good
    (tmp_path / "model.bin").write_bytes(good)
    assert Encoder(tmp_path / "model.bin").run([[5, 6]])[0].shape == (2, 36)
    if LIBRARY.exists():
        assert native_error(good) is None


def header(**changes) -> Callable[[Forged], object]:
    return lambda model: model.header.update(changes)


def entry(role: str, layer: int = NO_LAYER, **changes) -> Callable[[Forged], object]:
    return lambda model: model.entry(role, layer).update(changes)


def swap(model: Forged) -> None:
    first, second = model.entries[:2]
    for name in ("layer", "role"):
        first[name], second[name] = second[name], first[name]


def wrong(checksum: str) -> Callable[[Forged], object]:
    """A checksum of a tensor, or that of the entries, is not what it must be."""

    def change(model: Forged) -> None:
        model.wrong = checksum
        (model.header if checksum in model.header else model.entry("down", 1))[checksum] = 5

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (header(magic=b"\x01SPKMODM"), "not a compiled model"),
        (header(version=2), "of version 1, got 2"),
        (header(version=0), "of version 1, got 0"),
        (lambda m: m.header.update(total=m.header["total"] + 64), "it says it has"),
        (lambda m: m.header.update(total=2**64 - 1), "it says it has 18446744073709551615 bytes"),
        (lambda m: m.data.extend(bytes(64)), "it says it has"),
        (lambda m: (m.data.extend(bytes(64)), m.header.update(total=len(m.data))), "bytes behind its last tensor"),
        (header(tensors=2**32 - 1), "more tensors than fit"),
        (lambda m: (m.entries.pop(), m.header.update(tensors=len(m.entries))), "behind"),
        (wrong("entries_crc"), "its list of tensors has another checksum"),
        (wrong("crc"), "tensor 28 of layer 1 has another checksum"),
        (swap, "not sorted"),
        (lambda m: m.entries[1].update(layer=m.entries[0]["layer"], role=m.entries[0]["role"]), "not sorted"),
    ],
)
def test_headers_and_lists_of_tensors(good, change, message, tmp_path):
    model = Forged.of(good)
    change(model)
    refused(model.bytes(), message, tmp_path)


def test_an_unknown_kind_of_model(good, tmp_path):
    refused(of_kind(2, good), "a model of an unknown kind", tmp_path)


def test_an_encoder_that_says_it_is_a_language_model(good, tmp_path):
    (tmp_path / "model.bin").write_bytes(of_kind(1, good))
    with pytest.raises(ValueError, match="no encoder; open a language model with Generator"):
        Encoder(tmp_path / "model.bin")
    if LIBRARY.exists():
        assert native_error(of_kind(1, good)) is not None


def of_kind(kind: int, good: bytes) -> bytes:
    model = Forged.of(good)
    model.header["model_kind"] = kind
    return model.bytes()


def test_reserved_fields(good, tmp_path):
    for place in (START.size - 40, START.size - 1):
        refused(good[:place] + b"\1" + good[place + 1 :], "a reserved field is not 0", tmp_path)


def moved(role: str, by: int) -> Callable[[Forged], object]:
    return lambda model: model.entry(role).update(start=model.entry(role)["start"] + by)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved("position_embeddings", 64), "2 does not lie behind the one before it"),
        (moved("position_embeddings", -64), "2 does not lie behind the one before it"),
        (moved("position_embeddings", 1), "2 does not lie behind the one before it"),
        (entry("position_embeddings", start=0), "2 does not lie behind"),
        (entry("position_embeddings", start=2**64 - 64), "2 does not lie behind"),
        (entry("position_embeddings", size=2**64 - 1), "2 does not lie behind"),
        (entry("position_embeddings", size=45 * 36 * 4 + 64), "2 has another number of bytes than its shape"),
        (entry("position_embeddings", size=0), "2 has another number of bytes than its shape"),
        (entry("position_embeddings", rows=44), "2 has another number of bytes than its shape"),
        (entry("position_embeddings", rows=2**28, columns=2**28), "2 has another number of bytes than its shape"),
        (entry("position_embeddings", rows=2**62, columns=4), "2 has impossible sizes"),
        (entry("position_embeddings", rows=-45, columns=-36), "2 has impossible sizes"),
        (entry("position_embeddings", rows=0, columns=0), "2 has impossible sizes"),
        (entry("position_embeddings", kind=0), "2 is stored in an unknown way"),
        (entry("position_embeddings", kind=4), "2 is stored in an unknown way"),
        (entry("position_embeddings", kind=3), "2 has another number of bytes than its shape"),
        (entry("position_embeddings", kind=2), "packed weight"),
        (entry("word_embeddings", kind=1), "1 has another number of bytes than its shape"),
    ],
)
def test_entries_that_contradict_the_file(good, change, message, tmp_path):
    model = Forged.of(good)
    change(model)
    refused(model.bytes(), message, tmp_path)


def packed_field(name: str, value: int) -> Callable[[np.ndarray], object]:
    place = 16 + 8 * PACKED.index(name)
    return lambda weight: weight[place : place + 8].view("<i8").fill(value)


def packed_array(name: str, value: int, count: int = 4) -> Callable[[np.ndarray], object]:
    def change(weight: np.ndarray) -> None:
        place = 16 + 8 * PACKED.index(name)
        start = int(weight[place : place + 8].view("<u8")[0])
        weight[start : start + count] = value

    return change


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight[:1].fill(0), "not a packed weight of this version"),
        (lambda weight: weight[8:12].view("<u4").fill(99), "not a packed weight of this version"),
        (lambda weight: weight[12:16].view("<u4").fill(99), "unknown layout 99"),
        (packed_field("total", 2**63 - 1), "the packed weight says it has"),
        (packed_field("nnz", 2**40), "packed weight"),
        (packed_field("nnz", -1), "packed weight"),
        (packed_field("in_features", -1), "features|packed weight"),
        (packed_field("entries", 2**40), "packed weight"),
        (packed_field("column_blocks", 2**20), "packed weight"),
        (packed_field("columns", 2**40), "packed weight"),
        (packed_field("values", 3), "packed weight"),
        (packed_array("slice_offsets", 255), "the packed weight is damaged"),
        (packed_array("columns", 255), "the packed weight is damaged"),
    ],
)
def test_packed_weights_inside(dtype, change, message, tmp_path):
    sparse = encoder("bert")
    prune(sparse, 0.8)
    finalize(sparse).save_pretrained(tmp_path / "model")
    model = Forged.of(compile_model(tmp_path / "model", dtype=dtype).tobytes())
    change(model.tensor("up", 1))
    refused(model.bytes(), message, tmp_path)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_of_rows(good, scale, tmp_path):
    model = Forged.of(good)
    model.tensor("word_embeddings")[96 * 4 : 97 * 4].view("<f4")[0] = scale
    refused(model.bytes(), "scales of tensor 1 must be positive", tmp_path)


def test_values_of_rows(good, tmp_path):
    model = Forged.of(good)
    model.tensor("word_embeddings")[-1] = 128
    refused(model.bytes(), "int8 values of tensor 1 must be from -127 to 127, got -128", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": -1}, "sizes must not be negative"),
        ({"head_dim": 0}, "sizes must not be negative"),
        ({"first_position": -1}, "sizes must not be negative"),
        ({"layers": 4}, "tensor 16 of layer 3 is missing"),
        ({"layers": 2**31 - 1}, "tensor 16 of layer 3 is missing"),
        ({"head_dim": 5}, "layer 0 has a part of a head"),
        ({"head_dim": 2**31 - 1}, "layer 0 has a part of a head"),
        ({"first_position": 45}, "no position for a token"),
        ({"first_position": 2**31 - 1}, "no position for a token"),
        ({"norm_eps": 0.0}, "numbers must be finite"),
        ({"norm_eps": -1.0}, "numbers must be finite"),
        ({"norm_eps": np.nan}, "numbers must be finite"),
        ({"norm_eps": np.inf}, "numbers must be finite"),
        ({"attention_scale": np.nan}, "numbers must be finite"),
        ({"attention_scale": -np.inf}, "numbers must be finite"),
        ({"activation": 5}, "unknown activation function"),
        ({"activation": -1}, "unknown activation function"),
        ({"pooling": 4}, "unknown pooling"),
        ({"pooling": -1}, "unknown pooling"),
        ({"normalize": 2}, "normalize must be 0 or 1"),
    ],
)
def test_options(good, changes, message, tmp_path):
    options, tensors = tensors_of(good)
    refused(CompiledModel(replace(options, **changes), tensors).in_memory().tobytes(), message, tmp_path)


@pytest.mark.parametrize("layer", [NO_LAYER, 2])
def test_missing_tensors(good, layer, tmp_path):
    options, tensors = tensors_of(good)
    for tensor in (one for one in tensors if one.layer == layer):
        others = [one for one in tensors if one is not tensor]
        data = CompiledModel(options, others).in_memory().tobytes()
        if tensor.role == "type_embeddings" or tensor.role.endswith("_bias"):
            (tmp_path / "without.bin").write_bytes(data)
            assert Encoder(tmp_path / "without.bin").run([[5]])[0].shape == (1, 36)
        else:
            missing = rf"tensor {ROLES[tensor.role]}( of layer 2)? is missing"
            none = "neither position embeddings nor rotary ones"
            refused(data, none if tensor.role == "position_embeddings" else missing, tmp_path)


def floats(role: str, *shape: int, layer: int = NO_LAYER) -> Tensor:
    return Tensor.of_floats(layer, role, np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (floats("word_embeddings", 97, 35), "tensor 2 must have 35 columns"),
        (floats("word_embeddings", 0, 36), "tensor 1 has no rows"),
        (floats("position_embeddings", 45, 37), "tensor 2 must have 36 columns"),
        (floats("position_embeddings", 0, 36), "tensor 2 has no rows"),
        (floats("type_embeddings", 0, 36), "tensor 3 has no rows"),
        (floats("embedding_norm_weight", 35), "tensor 4 must have 36 floats"),
        (floats("embedding_norm_bias", 1, 36), "tensor 5 must have 36 floats"),
        (floats("query_bias", 35, layer=1), "tensor 17 of layer 1 must have 36 floats"),
        (floats("up_bias", 36, layer=2), "tensor 27 of layer 2 must have 50 floats"),
        (floats("output_norm_bias", 37, layer=0), "tensor 31 of layer 0 must have 36 floats"),
        (floats("value", 36, 36, layer=1), "tensor 20 of layer 1 must be a packed weight"),
        (("position_embeddings", "up", NO_LAYER), "tensor 2 must be a table"),
        (("key", "up", 0), "tensor 18 of layer 0 has a shape that does not fit"),
        (("value", "up", 0), "tensor 20 of layer 0 has a shape that does not fit"),
        (("attention_output", "up", 0), "tensor 22 of layer 0 has a shape that does not fit"),
        (("up", "down", 1), "tensor 26 of layer 1 has a shape that does not fit"),
        (("down", "query", 1), "tensor 28 of layer 1 has a shape that does not fit"),
    ],
)
def test_shapes_that_do_not_fit(good, tensor, message, tmp_path):
    options, tensors = tensors_of(good)
    if isinstance(tensor, tuple):  # the tensor of one role in the place of another
        role, other, layer = tensor
        source = next(one for one in tensors if (one.layer, one.role) == (layer % NO_LAYER, other))
        tensor = replace(source, role=role, layer=layer)
    others = [one for one in tensors if one.key != tensor.key]
    refused(CompiledModel(options, [*others, tensor]).in_memory().tobytes(), message, tmp_path)


def test_files_cut_off(good, tmp_path):
    for length in (1, 64, 127, 128, 200, len(good) // 128 * 64, len(good) - 64, len(good) - 1):
        refused(good[:length], "compiled model", tmp_path)
