"""The manifest of a model folder, `sparsekit.json`: arrays with checksums, and sparse layers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from sparsekit import runtime
from sparsekit.folder.layout import EMBEDDING_ARRAYS, FORMAT, FORMS, PLACES, weight_arrays
from sparsekit.formats.csr import BLOCKS
from sparsekit.formats.dtypes import BY_SAFETENSORS, FLOATS, WEIGHT_DTYPES
from sparsekit.io.safetensors_file import is_shape

_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class ArrayEntry:
    """One array of the weight files."""

    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    sha256: str  # of the array's bytes

    def __post_init__(self) -> None:
        if self.dtype not in BY_SAFETENSORS:
            raise ValueError(f"dtype must be one of {', '.join(BY_SAFETENSORS)}, got {self.dtype!r:.80}")
        if not is_shape(self.shape):
            raise ValueError(f"shape must be a list of sizes, got {self.shape!r:.80}")
        if not isinstance(self.sha256, str) or not _CHECKSUM.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 64 digits of base 16, got {self.sha256!r:.80}")
        object.__setattr__(self, "shape", tuple(self.shape))


@dataclass(frozen=True)
class LayerEntry:
    """A linear layer with a sparse weight."""

    shape: tuple[int, int]  # out_features, in_features
    dtype: str  # type of the stored values
    nnz: int  # number of stored entries
    form: str = "csr"  # form of the arrays, one of `FORMS`
    in_model: str = "sparse"  # "sparse" for a `SparseLinear`, "dense" for a dense layer with many zeros
    block: str = "1x1"
    activation: str | None = None  # fused activation function

    def __post_init__(self) -> None:
        if not is_shape(self.shape) or len(self.shape) != 2:
            raise ValueError(f"shape must be [out_features, in_features], got {self.shape!r:.80}")
        activations = [None, *(name for name in runtime.ACTIVATIONS if name != "none")]
        for name, allowed in (
            ("dtype", list(WEIGHT_DTYPES)),
            ("form", list(FORMS)),
            ("in_model", ["sparse", "dense"]),
            ("block", list(BLOCKS)),
            ("activation", activations),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r:.80}")
        out_features, in_features = self.shape
        if type(self.nnz) is not int or not 0 <= self.nnz <= out_features * in_features:
            raise ValueError(f"nnz must be from 0 to {out_features} * {in_features}, got {self.nnz!r:.80}")
        if self.in_model == "dense" and (
            self.dtype in ("int8", "int4") or self.form != "csr" or self.block != "1x1" or self.activation is not None
        ):
            raise ValueError("a layer that is dense in the model has a float dtype, the form csr, blocks of 1x1 and no "
                             "activation function")  # fmt: skip
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are not stored; 0 for a layer without weights."""
        size = self.shape[0] * self.shape[1]
        return 1.0 - self.nnz / size if size else 0.0


@dataclass(frozen=True)
class EmbeddingEntry:
    """Embeddings stored in int8, with a scale for each row."""

    output_dtype: str  # type of the module's output vectors

    def __post_init__(self) -> None:
        if self.output_dtype not in FLOATS:
            raise ValueError(f"output_dtype must be one of {', '.join(FLOATS)}, got {self.output_dtype!r:.80}")


def _seal(value: Mapping[str, Any]) -> str:
    """Checksum of a manifest's arrays and layers; excludes `verification`, which is filled in later."""
    sealed = {key: value[key] for key in ("arrays", "embeddings", "format", "layers", "library", "shared")}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _keyed(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object, got {value!r:.80}")
    return value


def _entries(value: Any, where: str, make: Callable[..., _Entry], keys: set[str]) -> dict[str, _Entry]:
    """Parse entries by name, each with exactly these keys."""
    found = {}
    for name, entry in _keyed(value, where).items():
        if set(_keyed(entry, f"{where}[{name!r}]")) != keys:
            raise ValueError(f"{where}[{name!r}] must have the keys {sorted(keys)}, got {sorted(entry)!s:.200}")
        try:
            found[name] = make(**entry)
        except (TypeError, ValueError) as error:  # TypeError: an unhashable value
            raise ValueError(f"{where}[{name!r}]: {error}") from error
    return found


@dataclass(frozen=True)
class Manifest:
    """Content of `sparsekit.json`, parsed and checked by `from_json`.

    Args:
        library: version of the library that wrote the folder.
        layers: layers with sparse weights, by module name.
        embeddings: int8 embeddings, by module name.
        arrays: all arrays in the weight files.
        shared: further name of a tensor in the model -> its stored name.
        verification: None, or results of `write_verification`, which this class does not interpret.
    """

    library: str
    layers: Mapping[str, LayerEntry]
    embeddings: Mapping[str, EmbeddingEntry]
    arrays: Mapping[str, ArrayEntry]
    shared: Mapping[str, str] = field(default_factory=dict)
    verification: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        """Parse and check a manifest.

        Raises:
            ValueError: the format version is unsupported, a key is unknown or missing, or entries contradict each
                other.
        """
        if value.get("format") != FORMAT or type(value["format"]) is not int:
            found = value.get("format")
            raise ValueError(f"format must be {FORMAT}, got {found!r:.80}; a newer version of sparsekit may read it")
        keys = {"format", "sha256", *cls.__dataclass_fields__}
        if set(value) != keys:
            raise ValueError(f"expected the keys {sorted(keys)}, got {sorted(value)!s:.200}")
        if value["sha256"] != _seal(value):
            raise ValueError("is damaged, its checksum is another; copy the folder again")
        layers = _entries(value["layers"], "layers", LayerEntry, set(LayerEntry.__dataclass_fields__))
        embeddings = _entries(value["embeddings"], "embeddings", EmbeddingEntry, {"output_dtype"})
        arrays = _entries(value["arrays"], "arrays", ArrayEntry, set(ArrayEntry.__dataclass_fields__))
        shared, verification = _keyed(value["shared"], "shared"), value["verification"]
        if not isinstance(value["library"], str):
            raise ValueError(f"library must be a version, got {value['library']!r:.80}")
        if verification is not None:
            _keyed(verification, "verification")
        manifest = cls(value["library"], layers, embeddings, arrays, shared, verification)
        manifest._check()
        return manifest

    def to_json(self) -> dict[str, Any]:
        """Inverse of `from_json`."""
        value = {"format": FORMAT, **asdict(self)}
        return {**value, "sha256": _seal(value)}

    def parts(self, layer: str) -> list[str]:
        """Names of the arrays of a layer's sparse weight."""
        entry = self.layers[layer]
        return [f"{layer}.{part}" for part in weight_arrays(entry.shape, entry.dtype, entry.nnz, entry.form)]

    def plain_arrays(self) -> list[str]:
        """Names of the arrays that are dense tensors of the model."""
        parts = {*self.table_arrays(), *(name for layer in self.layers for name in self.parts(layer))}
        return [name for name in self.arrays if name not in parts]

    def table_arrays(self) -> list[str]:
        """Names of the arrays of int8 embeddings."""
        return [f"{name}.{part}" for name in self.embeddings for part in EMBEDDING_ARRAYS]

    def model_arrays(self) -> list[str]:
        """Names of the arrays that are tensors of the model under their own names."""
        return [*self.table_arrays(), *self.plain_arrays()]

    def dense_weights(self) -> list[str]:
        """Names of the model's dense tensors that are stored sparse."""
        return [f"{name}.weight" for name, layer in self.layers.items() if layer.in_model == "dense"]

    def _check(self) -> None:
        for name in self.layers:
            self._check_weight(name)
        for name in self.embeddings:
            self._check_table(name)
        stored = {*self.model_arrays(), *self.dense_weights()}
        for name, other in self.shared.items():
            if not isinstance(other, str) or other not in stored or name in stored:
                raise ValueError(f"{name!r} cannot share {other!r}: expected the name of another stored tensor")

    def _check_weight(self, name: str) -> None:
        """Check that a layer's arrays are complete, of one form and consistent."""
        layer = self.layers[name]
        parts = self.parts(name)
        missing = [part for part in parts if part not in self.arrays]
        if not name or missing:
            raise ValueError(f"layer {name!r} lacks the arrays {missing}")
        extra = [part for place in PLACES if (part := f"{name}.{place}") in self.arrays and part not in parts]
        if extra:
            raise ValueError(f"layer {name!r} of the form {layer.form} with {layer.nnz} entries must not have {extra}")
        if layer.in_model == "dense" and f"{name}.weight" in self.arrays:
            raise ValueError(f"layer {name!r} has a dense and a sparse weight")
        zeros = self.arrays[f"{name}.zeros"].shape if f"{name}.zeros" in parts else (0,)
        if len(zeros) != 1:
            raise ValueError(f"array '{name}.zeros' must have one dimension")
        for part, (dtype, shape) in weight_arrays(layer.shape, layer.dtype, layer.nnz, layer.form, zeros[0]).items():
            array = self.arrays[f"{name}.{part}"]
            if (array.dtype, array.shape) != (dtype, shape):
                found = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"array '{name}.{part}' must be {dtype} {list(shape)}, got {found}")

    def _check_table(self, name: str) -> None:
        """Check that the arrays of embeddings are complete, consistent and not used otherwise."""
        missing = [part for part in EMBEDDING_ARRAYS if f"{name}.{part}" not in self.arrays]
        if not name or missing:
            raise ValueError(f"embeddings {name!r} lack the arrays {missing}")
        if name in self.layers or f"{name}.weight" in self.arrays:
            raise ValueError(f"{name!r} has a weight and embeddings in int8")
        codes = self.arrays[f"{name}.codes"]
        if len(codes.shape) != 2:
            raise ValueError(f"array '{name}.codes' must have two dimensions")
        shapes = {"codes": codes.shape, "scales": codes.shape[:1]}
        for part, dtype in EMBEDDING_ARRAYS.items():
            array = self.arrays[f"{name}.{part}"]
            if (array.dtype, array.shape) != (dtype, shapes[part]):
                found = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"array '{name}.{part}' must be {dtype} {list(shapes[part])}, got {found}")
