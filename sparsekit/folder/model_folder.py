"""Read a model folder, after checking its files against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.folder.manifest import ArrayEntry, LayerEntry, Manifest
from sparsekit.folder.stored_weight import weight_of
from sparsekit.folder.weight_files import weight_files
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.formats.quantization import check_quantized_rows
from sparsekit.io.atomic_folder import read_whole
from sparsekit.io.file_names import MANIFEST
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.io.untrusted import read_object, regular_file

#: Largest memory of a model per byte of its weight files, and an additional allowance: a few bytes can declare a huge
#: sparse weight, so a small file must not exhaust memory. Weights with 99.9% zeros need 170.
MOST_GROWTH = 256
_GROWTH_ROOM = 64 * 2**20
#: Bytes that packing needs per row and 128 columns, and per row, besides the entries, for the packed weight and its
#: plan; tests/formats/test_packing_memory.py compares them with measured memory.
_CELL_BYTES, _ROW_BYTES = 7, 48


def memory_of(layer: LayerEntry) -> int:
    """Approximate bytes that loading a layer needs, whatever its entries are."""
    out_features, in_features = layer.shape
    if layer.in_model == "dense":
        return out_features * in_features * 4
    if layer.dtype == "int4":  # int4 is packed dense
        return (out_features + 16) * (in_features + 128) * 5 // 8
    return (out_features + 16) * ((in_features // 128 + 1) * _CELL_BYTES + _ROW_BYTES)


def memory_limit(file_bytes: int) -> int:
    """Memory limit of a model with weight files of this size, in bytes."""
    return _GROWTH_ROOM + MOST_GROWTH * file_bytes


def _read_manifest(folder: Path) -> Manifest:
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder} has no {MANIFEST}; expected a folder that sparsekit.save wrote with dense=False")
    path = regular_file(folder, MANIFEST)
    value = read_object(path)
    try:
        return Manifest.from_json(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class ModelFolder:
    """An open folder of `save`.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is missing, damaged, a link out of the folder or inconsistent with the others, or the model
            would need far more memory than its files.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        self.path = path
        self._ahead: dict[str, Future[NDArray[np.uint8]]] = {}
        read_whole(path, self._open)

    def _open(self) -> None:
        """Read the manifest, open the weight files and check them against each other."""
        self.manifest = _read_manifest(self.path)
        #: Array -> its file, and its name there.
        self.files = {name: (file, name) for name, file in weight_files(self.path).items()}
        self._check_places()
        nbytes = sum(file.nbytes for file in {id(file): file for file, _ in self.files.values()}.values())
        self.memory_limit = memory_limit(nbytes)
        needed = sum(memory_of(layer) for layer in self.manifest.layers.values())
        if needed > self.memory_limit:
            raise ValueError(f"{self.path} has layers of {needed} bytes, far more than its files' {nbytes} can be")

    def _check_places(self) -> None:
        """Check that the weight files contain exactly the manifest's arrays."""
        wanted, found = set(self.manifest.arrays), set(self.files)
        if wanted != found:
            missing, extra = sorted(wanted - found)[:5], sorted(found - wanted)[:5]
            raise ValueError(f"weight files and {MANIFEST} of {self.path} differ: {missing} missing, {extra} extra")
        for name, entry in self.manifest.arrays.items():
            file = self.files[name][0]
            place = file.places[name]
            if (place.dtype, place.shape) != (entry.dtype, entry.shape):
                expected, got = f"{entry.dtype} {list(entry.shape)}", f"{place.dtype} {list(place.shape)}"
                raise ValueError(f"array {name!r} must be {expected}, got {got} in {file.path}")

    def raw(self, name: str) -> NDArray[np.uint8]:
        """Read the bytes of an array and verify the checksum; uint8, in newly allocated memory.

        Raises:
            ValueError: the bytes have another checksum.
        """
        file, stored_name = self.files[name]
        ahead = self._ahead.pop(stored_name, None)
        return self._checked(file, stored_name, self.manifest.arrays[name]) if ahead is None else ahead.result()

    def read_ahead(self) -> None:
        """Start reading the dense arrays in a thread: checksums take half the time of loading."""
        pool = ThreadPoolExecutor(1)
        for name in self.manifest.model_arrays():
            file, stored_name = self.files[name]
            task = pool.submit(self._checked, file, stored_name, self.manifest.arrays[name])
            self._ahead[stored_name] = task
        pool.shutdown(wait=False)

    def _checked(self, file: ArrayFile, stored_name: str, entry: ArrayEntry) -> NDArray[np.uint8]:
        found = file.raw(stored_name)
        if hashlib.sha256(found.data).hexdigest() != entry.sha256:
            raise ValueError(f"{file.path} is damaged: array {stored_name!r} has another checksum than {MANIFEST} "
                             "says; copy the folder again")  # fmt: skip
        return found

    def array(self, name: str) -> NDArray[Any]:
        """Read an array in numpy's type for it (see `DType.numpy`), in newly allocated memory.

        Raises:
            ValueError: its bytes have another checksum.
        """
        entry = self.manifest.arrays[name]
        return self.raw(name).view(BY_SAFETENSORS[entry.dtype].numpy).reshape(entry.shape)

    def floats(self, name: str) -> NDArray[np.float32]:
        """Read a floating-point array as float32, in newly allocated memory.

        Raises:
            ValueError: the checksum is wrong, or it is not floating point.
        """
        entry = self.manifest.arrays[name]
        try:
            return BY_SAFETENSORS[entry.dtype].float32(self.raw(name)).reshape(entry.shape)
        except TypeError as error:
            raise ValueError(f"array {name!r} of {self.path}: {error}") from error

    def weight(self, layer: str) -> CSR:
        """Read a layer's sparse weight, with values in their stored type.

        Raises:
            ValueError: its arrays are damaged or malformed.
        """
        arrays = {name.rpartition(".")[2]: self.array(name) for name in self.manifest.parts(layer)}
        try:
            return weight_of(self.manifest.layers[layer], arrays)
        except ValueError as error:
            raise ValueError(f"weight of layer {layer!r} in {self.path}: {error}") from error

    def table(self, embedding: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Read codes [rows, features] and scales [rows] of int8 embeddings; a row is its codes times its scale.

        Raises:
            ValueError: they are damaged, a code is -128, or a scale is not positive or too large.
        """
        codes, scales = self.array(f"{embedding}.codes"), self.floats(f"{embedding}.scales")
        try:
            check_quantized_rows(codes, scales)
        except ValueError as error:
            raise ValueError(f"embeddings {embedding!r} in {self.path}: {error}") from error
        return codes, scales

    def packed(self, layer: str, pack: Callable[..., runtime.Packed] = CSR.pack) -> runtime.Packed:
        """Read and pack a layer's sparse weight.

        Args:
            layer: name of the layer.
            pack: packs a weight, given its type and `block`.

        Raises:
            ValueError: its arrays are damaged, or the weight cannot be packed.
        """
        entry = self.manifest.layers[layer]
        weight = self.weight(layer)
        if not weight.has_full_blocks(entry.block):
            raise ValueError(f"weight of layer {layer!r} in {self.path} must have full blocks of {entry.block}, got "
                             "rows of a block with entries in different columns")  # fmt: skip
        try:
            return pack(weight, entry.dtype, block=entry.block)
        except ValueError as error:
            raise ValueError(f"weight of layer {layer!r} in {self.path}: {error}") from error
