"""Convert sparse weights to the arrays of a model folder and back, in the form with the fewest bytes.

CSR stores a column index for each entry, a bitmask a bit for each place, a dense array a zero for each place without an
entry. Entries that are zero themselves, such as small int8 weights or padding of blocks, are then listed in `zeros` by
place, unless every place has an entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.folder.layout import FORMS, nbytes_of, weight_arrays
from sparsekit.folder.manifest import LayerEntry
from sparsekit.formats import CSR
from sparsekit.formats.dtypes import BY_SAFETENSORS
from sparsekit.formats.quantization import pack_nibbles, unpack_nibbles


def _is_nonzero(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of values other than positive and negative zero; floats by their bits, as numpy lacks bfloat16."""
    bits = values if values.dtype == np.int8 else values.view(np.dtype(f"<u{values.itemsize}")) << 1  # without the sign
    nonzero: NDArray[np.bool_] = bits != 0
    return nonzero


def smallest_form(weight: CSR) -> str:
    """The one of `FORMS` in which a weight takes the fewest bytes."""
    zeros = weight.nnz - int(np.count_nonzero(_is_nonzero(weight.values)))
    specs = {form: weight_arrays(weight.shape, weight.dtype, weight.nnz, form, zeros) for form in FORMS}
    return min(FORMS, key=lambda form: nbytes_of(specs[form]))


def arrays_of(weight: CSR, form: str) -> dict[str, NDArray[Any]]:
    """The arrays of a weight, in the types of the format, by the last part of their names.

    Args:
        weight: the weight.
        form: one of `FORMS`.
    """
    arrays = {name: getattr(weight, name) for name in ("crow_indices", "col_indices", "values", "scales")}
    if form == "bitmask":
        arrays["mask"] = np.packbits(_entries(weight), axis=1, bitorder="little")
    if form == "dense":
        arrays |= _dense_arrays(weight)
    if weight.dtype == "int4":
        arrays["values"] = pack_nibbles(arrays["values"].reshape(-1))
    zeros = arrays["zeros"].size if "zeros" in arrays else 0
    spec = weight_arrays(weight.shape, weight.dtype, weight.nnz, form, zeros)
    return {
        name: np.ascontiguousarray(arrays[name], dtype=BY_SAFETENSORS[dtype].numpy) for name, (dtype, _) in spec.items()
    }


def _places(weight: CSR) -> NDArray[np.int64]:
    """Places of the entries, `row * in_features + column`."""
    rows = np.repeat(np.arange(weight.out_features), np.diff(weight.crow_indices))
    places: NDArray[np.int64] = rows * weight.in_features + weight.col_indices
    return places


def _entries(weight: CSR) -> NDArray[np.bool_]:
    """Mask of places with entries, shape [out_features, in_features]."""
    entries = np.zeros(weight.shape, np.bool_)
    entries.reshape(-1)[_places(weight)] = True
    return entries


def _dense_arrays(weight: CSR) -> dict[str, NDArray[Any]]:
    places = _places(weight)
    values = np.zeros(weight.shape, weight.values.dtype)
    values.reshape(-1)[places] = weight.values
    return {"values": values, "zeros": places[~_is_nonzero(weight.values)]}


def weight_of(entry: LayerEntry, arrays: Mapping[str, NDArray[Any]]) -> CSR:
    """Build a weight from its arrays, whose types and shapes are already checked.

    Args:
        entry: the layer's entry in the manifest.
        arrays: the arrays, by the last part of their names.

    Raises:
        ValueError: the arrays are malformed.
    """
    values, scales = _values(entry, arrays["values"]), arrays.get("scales")
    if entry.form == "csr":
        return CSR(arrays["crow_indices"], arrays["col_indices"], values, entry.shape, scales)
    if entry.form == "bitmask":
        stored = _masked_places(entry, arrays["mask"])
    else:
        stored = _stored_places(entry, values, arrays.get("zeros"))
        values = values[stored]
    crow_indices = np.concatenate([[0], np.cumsum(np.count_nonzero(stored, axis=1))])
    col_indices = np.zeros(0, np.int32)
    if stored.size:  # else a small file could declare any in_features
        columns = np.arange(entry.shape[1], dtype=np.int32)
        col_indices = np.broadcast_to(columns, entry.shape)[stored]
    return CSR(crow_indices, col_indices, values, entry.shape, scales)


def _values(entry: LayerEntry, values: NDArray[Any]) -> NDArray[Any]:
    """The values, one per element."""
    if entry.dtype != "int4":
        return values
    count = math.prod(entry.shape) if entry.form == "dense" else entry.nnz
    codes = unpack_nibbles(values, count)
    return codes.reshape(entry.shape) if entry.form == "dense" else codes


def _masked_places(entry: LayerEntry, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Unpack a bitmask to a bool mask, shape [out_features, in_features]."""
    bits = np.unpackbits(mask, axis=1, bitorder="little").view(np.bool_)
    in_features = entry.shape[1]
    if bits[:, in_features:].any():
        raise ValueError(f"mask must have no bits beyond {in_features} columns")
    found = int(np.count_nonzero(bits))
    if found != entry.nnz:
        raise ValueError(f"mask must have {entry.nnz} bits set, one for each entry, got {found}")
    return bits[:, :in_features]


def _stored_places(entry: LayerEntry, values: NDArray[Any], zeros: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Mask of a dense array's places with entries, shape [out_features, in_features]."""
    if zeros is None:
        return np.ones(values.shape, np.bool_)
    stored = _is_nonzero(values)
    places = stored.reshape(-1)
    in_order = bool((zeros[1:] > zeros[:-1]).all())
    if not in_order or (zeros.size and not 0 <= zeros[0] <= zeros[-1] < places.size):
        raise ValueError(f"zeros must rise strictly from 0 to {places.size - 1} at most")
    if places[zeros].any():
        raise ValueError(f"zeros must name places of zeros, got {zeros[places[zeros]][0]}, whose value is another")
    places[zeros] = True
    found = int(np.count_nonzero(places))
    if found != entry.nnz:
        raise ValueError(f"expected {entry.nnz} entries, got {found} in the dense array and its zeros")
    return stored
