"""Import matrices written by `scipy.sparse.save_npz` as CSR."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsekit.extras import how_to_install
from sparsekit.folder.model_folder import memory_limit
from sparsekit.formats import CSR
from sparsekit.io.safetensors_file import entries_of

#: SciPy formats that are read; the others store dense parts.
_FORMATS = ("csr", "csc", "coo", "bsr")
#: Version of an .npy header -> numpy's function that reads it.
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _check_member(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise ValueError unless a member is a plain array whose size matches its header."""
    with file.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"{entry.filename} has a header of version {version}, expected 1.0 or 2.0")
        shape, _, dtype = _HEADERS[version](member)
        if dtype.hasobject or entries_of(shape) * dtype.itemsize != entry.file_size - member.tell():
            raise ValueError(f"{entry.filename} must hold {dtype} {list(shape)}, its size is another")


def _check_archive(path: Path) -> None:
    """Raise ValueError unless a file is a zip archive of arrays whose sizes match their headers."""
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
        if unpacked > memory_limit(size):
            raise ValueError(f"it unpacks to {unpacked} bytes, far more than its {size}")
        names = {entry.filename for entry in entries}
        if not {"format.npy", "shape.npy", "data.npy"} <= names or len(names) != len(entries):
            raise ValueError(f"expected the arrays of scipy.sparse.save_npz, got {sorted(names)[:5]}")
        for entry in entries:
            _check_member(file, entry)


def _load(path: Path) -> Any:
    """A SciPy matrix with validated indices, which SciPy itself does not check when it loads and converts."""
    import scipy.sparse

    _check_archive(path)
    matrix = scipy.sparse.load_npz(path)
    if matrix.format not in _FORMATS or matrix.ndim != 2 or matrix.dtype.kind != "f":
        found = f"{matrix.ndim} dimensions of {matrix.dtype} as {matrix.format}"
        raise ValueError(f"expected a matrix of floats as {', '.join(_FORMATS)}, got {found}")
    if matrix.shape[0] * 8 > memory_limit(path.stat().st_size):
        raise ValueError(f"it has {matrix.shape[0]} rows, far more than its bytes can fill")
    if matrix.format != "coo":  # COO validates its indices on construction
        if (matrix.indptr[1:] < matrix.indptr[:-1]).any():  # SciPy checks this only if the last one is above zero
            raise ValueError("indptr must never fall")
        matrix.check_format(full_check=True)
    return matrix


def _read(path: Path) -> CSR:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return CSR.from_scipy(_load(path))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs SciPy: {how_to_install('import')}") from error
    except Exception as error:  # SciPy and zipfile raise many exception types on malformed files
        raise ValueError(f"{path} holds no sparse weight: {error}") from error


def _name(path: Path) -> str:
    """Name of the weight in a file: `encoder.0.weight.npz`, or `encoder.0.npz`, named after its layer."""
    return path.stem if path.stem.endswith(".weight") else f"{path.stem}.weight"


def import_scipy(source: Path | str | Mapping[str, Path | str]) -> dict[str, CSR]:
    """Weights written by `scipy.sparse.save_npz`, [out_features, in_features], in CSR, CSC, COO or BSR.

    Args:
        source: a file; a folder of files, each named after its weight (`encoder.0.weight.npz`) or its layer
            (`encoder.0.npz`); or names of weights -> files.

    Returns:
        Weight name -> CSR, with values in float32.

    Raises:
        FileNotFoundError: there is no such file or folder, or no `.npz` file in it.
        ModuleNotFoundError: SciPy is not installed.
        ValueError: a file is malformed, unpacks to far more than its size, or is not a matrix of floats.
    """
    if isinstance(source, Mapping):
        return {name: _read(Path(path)) for name, path in source.items()}
    path = Path(source)
    if not path.is_dir():
        return {_name(path): _read(path)}
    paths = sorted(path.glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"there is no .npz file in {path}")
    found: dict[str, CSR] = {}
    for one in paths:
        if _name(one) in found:
            raise ValueError(f"{path} must hold a weight once, got two files for {_name(one)!r}")
        found[_name(one)] = _read(one)
    return found
