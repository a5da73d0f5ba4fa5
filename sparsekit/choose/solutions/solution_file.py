"""One layer's solutions on disk, a safetensors file.

    1.mask, 1.values, ...   the weight at each level above 0: a bit for each place, float16 values of the nonzeros
    errors                  float64, a relative error for each level
    seal                    SHA-256 of the database's identity, the layer's name and all other arrays

A killed run leaves whole files or none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsekit.choose.assignments.levels import SPARSITIES
from sparsekit.folder.layout import weight_arrays
from sparsekit.folder.manifest import LayerEntry
from sparsekit.folder.stored_weight import arrays_of, weight_of
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.io.safetensors_file import ArrayFile
from sparsekit.training.checkpoint import write_tensors

_DTYPE, _FORM = "float16", "bitmask"
_ERRORS, _SEAL = "errors", "seal"
_LARGEST = float(np.finfo(np.float16).max)
#: With a damaged file, or one of another database.
_WHAT_TO_DO = "delete it, and its solutions are found again"


def rounded(name: str, weight: torch.Tensor) -> CSR:
    """A solution as it is stored, its values in float16.

    Raises:
        ValueError: a value is beyond float16.
    """
    largest = weight.abs().max().item() if weight.numel() else 0.0
    if not largest <= _LARGEST:
        raise ValueError(
            f"{name}: solutions are stored as float16, at most {_LARGEST:,.0f}, got a weight of {largest:g}; put the "
            "layer into ignore"
        )
    sparse = CSR.from_torch(weight.half().float())
    return CSR(sparse.crow_indices, sparse.col_indices, sparse.values.astype(np.float16), sparse.shape)


def _seal(identity: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    found = hashlib.sha256(identity.encode())
    for name in sorted(arrays):
        found.update(f"\n{name} {arrays[name].dtype} {list(arrays[name].shape)}\n".encode())
        found.update(arrays[name].data)
    return np.frombuffer(found.digest(), np.uint8).copy()


def write_solutions(path: Path, identity: str, solutions: Sequence[CSR], errors: Sequence[float]) -> None:
    """Write a layer's solutions, atomically.

    Args:
        path: the file.
        identity: of the database and of the layer; whoever reads the file must know it.
        solutions: at the levels 1, 2, ..., as `rounded` gives them.
        errors: at all levels, that of level 0 included.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {_ERRORS: np.array(errors, np.float64)}
    for level, solution in enumerate(solutions, 1):
        arrays |= {f"{level}.{part}": array for part, array in arrays_of(solution, _FORM).items()}
    arrays[_SEAL] = _seal(identity, arrays)
    write_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()})


class SolutionFile:
    """A layer's solutions, checked when they are opened; weights are read when they are asked for.

    Args:
        path: the file.
        identity: as it was written with.
        shape: of the layer's weight, [out_features, in_features].

    Attributes:
        nbytes: bytes of the file.
        errors: the layer's relative error at each level.

    Raises:
        ValueError: the file is damaged, or of another identity or shape.
    """

    def __init__(self, path: Path, identity: str, shape: tuple[int, int]) -> None:
        self._shape = shape
        try:
            self._file = ArrayFile(path)
            self._check_places()
            arrays = {name: self._array(name) for name in self._file.places}
            if not np.array_equal(arrays.pop(_SEAL), _seal(identity, arrays)):
                raise ValueError("its seal is that of another model, other batches or settings, or of other bytes")
        except ValueError as error:
            raise ValueError(f"{path} holds no solutions of this database ({error}); {_WHAT_TO_DO}") from error
        self.nbytes = self._file.nbytes
        self.errors = tuple(arrays[_ERRORS].tolist())

    def _check_places(self) -> None:
        wanted: dict[str, tuple[str, tuple[int, ...]]] = {_ERRORS: ("F64", (len(SPARSITIES),)), _SEAL: ("U8", (32,))}
        for level in range(1, len(SPARSITIES)):
            wanted |= {f"{level}.{part}": place for part, place in self._spec(level).items()}
        found = {name: (place.dtype, place.shape) for name, place in self._file.places.items()}
        if found != wanted:
            differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            raise ValueError(f"its arrays {', '.join(differing)!s:.200} are not those of a weight of {self._shape}")

    def _nnz(self, level: int) -> int:
        place = self._file.places.get(f"{level}.values")
        return place.shape[0] if place is not None and len(place.shape) == 1 else 0

    def _spec(self, level: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return weight_arrays(self._shape, _DTYPE, self._nnz(level), _FORM)

    def _array(self, name: str) -> NDArray[Any]:
        place = self._file.places[name]
        return self._file.raw(name).view(BY_SAFETENSORS[place.dtype].numpy).reshape(place.shape)

    def weight(self, level: int) -> torch.Tensor:
        """The solution at a level above 0, float32, shape [out_features, in_features].

        Raises:
            ValueError: the file was cut off or changed since it was opened.
        """
        entry = LayerEntry(self._shape, _DTYPE, self._nnz(level), _FORM)
        arrays = {part: self._array(f"{level}.{part}") for part in self._spec(level)}
        try:
            return torch.from_numpy(weight_of(entry, arrays).to_dense())
        except ValueError as error:
            raise ValueError(f"{self._file.path} is damaged ({error}); {_WHAT_TO_DO}") from error
