"""Independent reader of docs/format.md: the sparse weights of a model folder, with json, hashlib and numpy only."""

import hashlib
import json
from pathlib import Path

import numpy as np

TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1", "U16": "<u2", "U32": "<u4", "I64": "<i8"}


def _arrays(folder: Path, manifest: dict) -> dict[str, np.ndarray]:
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {}
    for name, entry in manifest["arrays"].items():
        begin, end = (start + offset for offset in header[name]["data_offsets"])
        assert hashlib.sha256(data[begin:end]).hexdigest() == entry["sha256"]
        found[name] = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def _float32(values: np.ndarray, dtype: str) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else values.astype(np.float32)


def _codes(packed: np.ndarray, count: int) -> np.ndarray:
    """Two of four bits in a byte, as two's complement."""
    halves = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    assert not halves[count:].any()
    return np.where(halves < 8, halves, halves.astype(int) - 16)[:count]


def _bitmask(shape: tuple[int, int], arrays: dict[str, np.ndarray], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    bits = np.unpackbits(arrays["mask"], axis=1, bitorder="little").astype(bool)
    assert not bits[:, shape[1] :].any()
    stored, weight = bits[:, : shape[1]], np.zeros(shape, np.float32)
    weight[stored] = _float32(arrays["values"], dtype)
    return weight, stored


def _csr(shape: tuple[int, int], arrays: dict[str, np.ndarray], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    weight, stored = np.zeros(shape, np.float32), np.zeros(shape, bool)
    values, crow_indices = _float32(arrays["values"], dtype), arrays["crow_indices"].astype(np.int64)
    for row in range(shape[0]):
        entries = slice(crow_indices[row], crow_indices[row + 1])
        weight[row, arrays["col_indices"][entries]] = values[entries]
        stored[row, arrays["col_indices"][entries]] = True
    return weight, stored


def _dense(nnz: int, arrays: dict[str, np.ndarray], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    weight = _float32(arrays["values"], dtype)
    if nnz == weight.size:
        return weight, np.ones(weight.shape, bool)
    stored = weight != 0
    for place in arrays["zeros"].tolist():
        stored[divmod(place, weight.shape[1])] = True
    assert stored.sum() == nnz
    return weight, stored


def read_layers(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each layer its weight, float32 with zeros where there is no entry, and which places are entries."""
    manifest = json.loads((folder / "sparsekit.json").read_text())
    arrays, found = _arrays(folder, manifest), {}
    for name, layer in manifest["layers"].items():
        own = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
        shape, dtype, size = tuple(layer["shape"]), layer["dtype"], layer["shape"][0] * layer["shape"][1]
        if dtype == "int4":
            codes = _codes(own["values"], size if layer["form"] == "dense" else layer["nnz"])
            own["values"] = codes.reshape(shape) if layer["form"] == "dense" else codes
        if layer["form"] == "dense":
            weight, stored = _dense(layer["nnz"], own, dtype)
        else:
            weight, stored = {"csr": _csr, "bitmask": _bitmask}[layer["form"]](shape, own, dtype)
        if dtype == "int8":
            weight = weight * own["scales"][:, None]
        if dtype == "int4":
            weight = weight * own["scales"].astype(np.float32).repeat(128, axis=1)[:, : shape[1]]
        found[name] = weight, stored
    return found
