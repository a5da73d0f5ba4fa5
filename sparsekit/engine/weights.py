"""Read the weights of a model folder, of `sparsekit.save` or transformers, by their names in the model."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.layouts import Layouts
from sparsekit.folder.model_folder import ModelFolder
from sparsekit.folder.weight_files import check_finalized, weight_files
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.formats.quantization import dequantize_rows
from sparsekit.io.file_names import INDEX, MANIFEST, WEIGHTS

#: Suffix of names in checkpoints converted from TensorFlow -> transformers' name.
_RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True)
class Part:
    """Some of several equal parts of a fused layer's rows: `first` to `last`, exclusive."""

    first: int = 0
    last: int = 1
    count: int = 1
    #: Period of the parts in rows, such as the rows of a head; 0 if the whole layer is split once.
    period: int = 0
    #: Whether the dense weight is stored as [in_features, out_features].
    transposed: bool = False

    @property
    def whole(self) -> bool:
        """Whether the part is the whole layer."""
        return self.last - self.first == self.count

    def rows(self, layer: str, out_features: int) -> slice | NDArray[np.int64]:
        """Indices of the part's rows.

        Raises:
            ValueError: the rows cannot be split into that many parts.
        """
        period = self.period or out_features
        if period % self.count:
            raise ValueError(f"layer {layer!r} must have {self.count} equal parts, got {out_features} rows")
        if out_features % period:
            raise ValueError(f"layer {layer!r} must have a multiple of {period} rows, got {out_features}")
        size = period // self.count
        if period == out_features:
            return slice(self.first * size, self.last * size)
        return np.arange(out_features).reshape(-1, period)[:, self.first * size : self.last * size].reshape(-1)

    def of(self, layer: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of a stored dense weight, shape [out_features, in_features].

        Raises:
            ValueError: the weight is not two-dimensional, or cannot be split into that many parts.
        """
        if weight.ndim != 2:
            raise ValueError(f"weight of layer {layer!r} must have two dimensions, got shape {list(weight.shape)}")
        rows = weight.T if self.transposed else weight
        return rows[self.rows(layer, len(rows))]


#: All of a layer.
WHOLE = Part()


class Weights(Protocol):
    """The tensors of a model."""

    @property
    def names(self) -> Set[str]:
        """Names in the model: `LAYER.weight` for every linear layer, sparse or not, and for embeddings."""

    def floats(self, name: str) -> NDArray[np.float32]:
        """Read a tensor as dense float32.

        Raises:
            ValueError: it is damaged or does not hold floats.
        """

    def quantized(self, embedding: str) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
        """Codes [rows, features] and scales [rows] of int8 embeddings; None for others.

        Raises:
            ValueError: they are damaged.
        """

    def packed(self, layer: str, dtype: str, part: Part) -> runtime.Packed:
        """Pack the weight of a linear layer, or a part of it.

        Args:
            layer: name of the layer.
            dtype: type for dense layers; sparse layers keep their type.
            part: rows of the layer.

        Raises:
            ValueError: it is damaged, or cannot be stored in this type.
        """

    def activation(self, layer: str) -> str | None:
        """Activation function that is fused into a linear layer."""


def open_weights(folder: Path, layouts: Layouts) -> Weights:
    """Open the weight files of a model folder.

    Args:
        folder: the folder.
        layouts: chooses the layout of each layer.

    Raises:
        ValueError: files are missing, damaged or do not fit each other.
    """
    if (folder / MANIFEST).exists():
        return _SparseWeights(folder, layouts)
    return _PlainWeights(folder, layouts)


def _pack_dense(layer: str, weight: NDArray[np.float32], dtype: str, part: Part, layouts: Layouts) -> runtime.Packed:
    return layouts.pack(CSR.from_dense(part.of(layer, weight)), dtype)


class _PlainWeights:
    """safetensors files as transformers writes them."""

    def __init__(self, folder: Path, layouts: Layouts) -> None:
        self._layouts = layouts
        if not (folder / WEIGHTS).exists() and not (folder / INDEX).exists():
            raise ValueError(f"{folder} has no {WEIGHTS}; write it with transformers: "
                             f"AutoModel.from_pretrained({str(folder)!r}).save_pretrained(...)")  # fmt: skip
        files = weight_files(folder)
        check_finalized(folder, files)
        self._files = {_name_in_model(name): (name, file) for name, file in files.items()}
        self.names = self._files.keys()

    def floats(self, name: str) -> NDArray[np.float32]:
        stored_name, file = self._files[name]
        place = file.places[stored_name]
        try:
            return BY_SAFETENSORS[place.dtype].float32(file.raw(stored_name)).reshape(place.shape)
        except TypeError as error:
            raise ValueError(f"array {stored_name!r} of {file.path}: {error}") from error

    def quantized(self, embedding: str) -> None:
        return None

    def packed(self, layer: str, dtype: str, part: Part) -> runtime.Packed:
        return _pack_dense(layer, self.floats(f"{layer}.weight"), dtype, part, self._layouts)

    def activation(self, layer: str) -> None:
        return None


def _name_in_model(name: str) -> str:
    found = next((old for old in _RENAMED if name.endswith(old)), None)
    return name if found is None else name.removesuffix(found) + _RENAMED[found]


class _SparseWeights:
    """A folder of `sparsekit.save`."""

    def __init__(self, folder: Path, layouts: Layouts) -> None:
        self._layouts = layouts
        self._folder = ModelFolder(folder)
        manifest = self._folder.manifest
        weights = {f"{module}.weight" for module in (*manifest.layers, *manifest.embeddings)}
        self.names = {*manifest.plain_arrays(), *weights, *manifest.shared}

    def floats(self, name: str) -> NDArray[np.float32]:
        name = self._folder.manifest.shared.get(name, name)
        module = name.removesuffix(".weight")
        if module in self._folder.manifest.embeddings:
            return dequantize_rows(*self._folder.table(module))
        return (
            self._folder.floats(name)
            if name in self._folder.manifest.arrays
            else self._folder.weight(module).to_dense()
        )

    def quantized(self, embedding: str) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
        return self._folder.table(embedding) if embedding in self._folder.manifest.embeddings else None

    def packed(self, layer: str, dtype: str, part: Part) -> runtime.Packed:
        entry = self._folder.manifest.layers.get(layer)
        if entry is None:
            return _pack_dense(layer, self.floats(f"{layer}.weight"), dtype, part, self._layouts)
        if entry.in_model == "sparse" and part.whole:
            return self._folder.packed(layer, self._layouts.pack)
        weight = self._folder.weight(layer)
        weight = weight.rows(part.rows(layer, weight.out_features))
        return self._layouts.pack(weight, entry.dtype if entry.in_model == "sparse" else dtype)

    def activation(self, layer: str) -> str | None:
        entry = self._folder.manifest.layers.get(layer)
        return None if entry is None else entry.activation
