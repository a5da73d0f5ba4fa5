"""Compiled models: bytes follow the specification, and damaged files are refused."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import assert_close, bert_with_tokenizer, encoder, sequences

from sparsekit import runtime
from sparsekit.engine import Encoder, compile_model
from sparsekit.engine.compiled_file import (
    ALIGNMENT,
    BLOCK_ORDERS,
    KINDS,
    MAGIC,
    NO_LAYER,
    POOLINGS,
    ROLES,
    TANH,
    TASKS,
    VERSION,
    Tensor,
)

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.fixture
def folder(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def enumeration(text: str, name: str) -> dict[str, int]:
    body = re.search(rf"enum class {name}[^{{]*\{{(.*?)\}}", text, re.DOTALL)[1]
    return {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", body)}


def test_numbers_are_those_of_the_core():
    header = (CSRC / "model" / "compiled_file.h").read_text()
    assert enumeration(header, "Role") == ROLES
    assert enumeration(header, "TensorKind") == KINDS
    assert enumeration(header, "BlockOrder") == BLOCK_ORDERS
    assert f"kCompiledVersion = {VERSION};" in header
    assert f"kCompiledMagic = 0x{int.from_bytes(MAGIC, 'little'):X};" in header
    assert f"kNoLayer = 0x{NO_LAYER:X};" in header
    head = (CSRC / "model" / "head.h").read_text()
    assert enumeration(head, "Task") == TASKS
    assert enumeration(head, "HeadActivation") == {**runtime.ACTIVATIONS, "tanh": TANH}
    poolings = enumeration((CSRC / "operators" / "pooling.h").read_text(), "Pooling")
    assert poolings == {name or "none": code for name, code in POOLINGS.items()}


def test_the_specification_has_every_number():
    text = (CSRC.parent / "docs" / "compiled-model.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)`", text, re.MULTILINE))
    assert {name: int(number) for number, name in rows.items() if name in ROLES} == ROLES


def test_the_bytes_are_those_of_the_specification(folder):
    compiled = compile_model(folder, pooling="max")
    data = compiled.tobytes()
    assert compiled.ctypes.data % ALIGNMENT == 0
    magic, version, tensors, total = struct.unpack_from("<8sIIQ", data)
    assert (magic, version, total) == (MAGIC, VERSION, len(data))
    options = (3, 12, 0, 2, np.float32(1e-12), np.float32(12**-0.5), 3, 0, 0, 0, 0)
    assert struct.unpack_from("<4i2f5i", data, 24) == options
    entries = data[128 : 128 + 48 * tensors]
    assert struct.unpack_from("<I", data, 68) == (zlib.crc32(entries),)
    assert not any(data[72:128])
    found = [struct.unpack_from("<4I2q2Q", entries, 48 * number) for number in range(tensors)]
    assert [entry[:2] for entry in found] == sorted(entry[:2] for entry in found)
    assert tensors == 5 + 3 * 16
    end = 128 + len(entries)
    for _, _, _, crc, _, _, start, size in found:
        assert start % ALIGNMENT == 0
        assert data[end:start] == bytes(start - end)
        assert start - end < ALIGNMENT
        assert zlib.crc32(data[start : start + size]) == crc
        end = start + size
    assert len(data) % ALIGNMENT == 0
    assert data[end:] == bytes(len(data) - end)


def test_a_file_holds_the_same_bytes_and_runs(folder, tmp_path):
    path = tmp_path / "out" / "model.bin"
    compile_model(folder, path)
    assert path.read_bytes() == compile_model(folder).tobytes()
    assert [one.name for one in path.parent.iterdir()] == ["model.bin"]
    ids = sequences()
    expected = Encoder(folder).run(ids)
    for mmap in (True, False):
        for found, states in zip(Encoder(path, mmap=mmap).run(ids), expected, strict=True):
            assert np.array_equal(found, states)


def test_sizes_and_threads_that_share_an_encoder(folder):
    from concurrent.futures import ThreadPoolExecutor

    found = Encoder(folder)
    assert (found.features, found.max_tokens) == (36, 45)
    ids = sequences((33, 20, 5))
    expected = found.run(ids)
    with ThreadPoolExecutor(4) as pool:
        for states in pool.map(found.run, [ids] * 16):
            assert all(map(np.array_equal, states, expected))


def test_nothing_to_run(folder):
    found = Encoder(folder)
    assert found.run([]) == []
    empty, one = found.run([[], [5]])
    assert (empty.shape, one.shape) == ((0, 36), (1, 36))


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("content", [b"", b"x" * 64, b"x" * 1000])
def test_other_files_are_refused(content, mmap, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="compiled model"):
        Encoder(path, mmap=mmap)


def test_damaged_files_are_refused(folder):
    compiled = compile_model(folder)
    for place in (8, 12, 16, 24, 28, 36, 56, 64, 127, 128, 134, 154, 174):
        damaged = compiled.copy()
        buffer = runtime_buffer(damaged)
        buffer[place] ^= 255
        with pytest.raises(ValueError, match="compile"):
            runtime.CompiledEncoder(buffer)
    with pytest.raises(ValueError, match="bytes"):
        runtime.CompiledEncoder(compiled[:-64])


def runtime_buffer(data: np.ndarray) -> np.ndarray:
    from sparsekit.engine.compiled_file import aligned_buffer

    buffer = aligned_buffer(data.size)
    buffer[:] = data
    return buffer


def test_what_the_core_does_not_take_is_refused(folder):
    found = Encoder(folder)
    for ids, match in [([[97]], "ids"), ([[5] * 46], "45"), ([[-1]], "from 0"), ([[2**31]], "from 0")]:
        with pytest.raises(ValueError, match=match):
            found.run(ids)
    with pytest.raises(ValueError, match="types"):
        found.run([[5, 6]], [[0]])
    with pytest.raises(ValueError, match="types"):
        found.run([[5, 6]], [[0, 2]])
    with pytest.raises(ValueError, match="list of sequences"):
        found.run([5, 6])
    with pytest.raises(TypeError, match="integers"):
        found.run([[0.5]])
    core = runtime.CompiledEncoder(compile_model(folder))
    ids = np.array([5, 6], np.int32)
    for offsets in ([0, 1], [1, 2], [0, 3, 2], []):
        with pytest.raises(ValueError, match="offsets"):
            core.run(ids, np.array(offsets, np.int64))
    with pytest.raises(TypeError, match="int32"):
        core.run(ids.astype(np.int64), np.array([0, 2]))


def test_a_compiled_file_pools_with_the_tokenizer_that_is_given(tmp_path):
    folder = bert_with_tokenizer(tmp_path / "model")
    path = tmp_path / "model.bin"
    compile_model(folder, path, pooling="mean")
    texts = ["a film", "a long story about a film"]
    expected = Encoder(folder, pooling="mean").encode(texts)
    found = Encoder(path, tokenizer=folder / "tokenizer.json").encode(texts)
    assert np.array_equal(found, expected)
    with pytest.raises(ValueError, match="tokenizer"):
        Encoder(path).encode(texts)
    for argument in ("dtype", "embeddings", "pooling"):
        with pytest.raises(ValueError, match=f"its own {argument}"):
            Encoder(path, **{argument: "mean"})


def test_a_tensor_of_floats_says_its_shape():
    tensor = Tensor.of_floats(0, "up_bias", np.ones(3, np.float32))
    assert (tensor.rows, tensor.columns, tensor.data.size) == (3, 1, 12)
    assert_close(tensor.data.view(np.float32), np.ones(3, np.float32))


def test_bits_a_weight(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "folder")
    file = tmp_path / "model.bin"
    made = {
        dtype: compile_model(tmp_path / "folder", file, dtype=dtype, embeddings=dtype) for dtype in ("float32", "int8")
    }
    assert made["int8"].nbytes == file.stat().st_size
    assert 32 <= made["float32"].bits_per_weight < 64  # rows and columns are padded
    assert 8 < made["int8"].bits_per_weight < made["float32"].bits_per_weight / 2
