"""The layout of a model folder: its files, and the arrays of each sparse layer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from sparsekit.formats.dtypes import BY_NAME, BY_SAFETENSORS
from sparsekit.formats.quantization import scales_shape
from sparsekit.io.file_names import CARD, CONFIG, GENERATION_CONFIG, INDEX, MANIFEST, RECIPE, VERIFICATION, WEIGHTS

#: Version of the format; readers refuse others.
FORMAT = 1
#: `quant_method` in `config.json`, by which transformers selects the quantizer.
METHOD = "sparsekit"

#: Files of transformers' tokenizers.
_OF_TOKENIZER = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|chat_template.*|vocab\..*|merges\.txt|.*\.model|.*\.bpe"
)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def is_shard(name: str) -> bool:
    """Whether a file name is that of a weight shard."""
    return _SHARD.fullmatch(name) is not None


def is_written_by_save(name: str) -> bool:
    """Whether `save` writes files of this name, other than tokenizer files; the next `save` replaces them."""
    fixed = (CONFIG, GENERATION_CONFIG, MANIFEST, WEIGHTS, INDEX, RECIPE, CARD, VERIFICATION)
    return name in fixed or is_shard(name)


def is_written_with_tokenizer(name: str) -> bool:
    """The same for `save` with a tokenizer: files of an older tokenizer would change the new one."""
    return is_written_by_save(name) or _OF_TOKENIZER.fullmatch(name) is not None


def column_dtype(in_features: int) -> str:
    """Type of `col_indices`: the narrowest that holds every possible column."""
    return "U8" if in_features <= 2**8 else "U16" if in_features <= 2**16 else "U32"


def offset_dtype(most: int) -> str:
    """Type of `crow_indices`, which are at most nnz, and of `zeros`, which are below the size of the weight."""
    return "U32" if most < 2**32 else "I64"


#: Forms of a stored sparse weight: CSR, bitmask or dense array. Of forms with equal size, the first is used.
FORMS = ("csr", "bitmask", "dense")
#: Arrays of all forms, by the last part of their names.
PLACES = ("crow_indices", "col_indices", "mask", "zeros")


def weight_arrays(
    shape: tuple[int, int], dtype: str, nnz: int, form: str = "csr", zeros: int = 0
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Types and shapes of the arrays of a sparse weight, by the last part of their names.

    Args:
        shape: out_features, in_features.
        dtype: type of the stored values.
        nnz: number of stored entries.
        form: one of `FORMS`.
        zeros: number of stored entries that are zero, which a dense array lists unless all places are stored.
    """
    out_features, in_features = shape
    size = out_features * in_features
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
    if form == "csr":
        arrays["crow_indices"] = (offset_dtype(nnz), (out_features + 1,))
        arrays["col_indices"] = (column_dtype(in_features), (nnz,))
    elif form == "bitmask":
        arrays["mask"] = ("U8", (out_features, (in_features + 7) // 8))
    elif nnz < size:
        arrays["zeros"] = (offset_dtype(size), (zeros,))
    arrays["values"] = (BY_NAME[dtype].safetensors, _values_shape(shape, dtype, nnz, form))
    if dtype in ("int8", "int4"):
        arrays["scales"] = ("F32" if dtype == "int8" else "F16", scales_shape(dtype, shape))
    return arrays


def _values_shape(shape: tuple[int, int], dtype: str, nnz: int, form: str) -> tuple[int, ...]:
    """Shape of the values; int4 values are two per byte."""
    count = math.prod(shape) if form == "dense" else nnz
    if dtype == "int4":
        return ((count + 1) // 2,)
    return shape if form == "dense" else (nnz,)


def nbytes_of(arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Size in bytes of arrays of these types and shapes."""
    return sum(BY_SAFETENSORS[dtype].nbytes * math.prod(shape) for dtype, shape in arrays.values())


#: Types of the arrays of int8 embeddings, by the last part of their names.
EMBEDDING_ARRAYS = {"codes": "I8", "scales": "F32"}
