"""The layout of a model folder: its files, and the arrays of each sparse layer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from sparsekit.formats.dtypes import BY_NAME, BY_SAFETENSORS
from sparsekit.formats.quantization import scales_shape
from sparsekit.io.file_names import CARD, CONFIG, GENERATION_CONFIG, INDEX, MANIFEST, RECIPE, VERIFICATION, WEIGHTS

#: Version of the format; a reader refuses any other.
FORMAT = 1
#: `quant_method` in `config.json`, by which transformers knows what reads the folder.
METHOD = "sparsekit"

#: Files that tokenizers of transformers are made of.
_OF_TOKENIZER = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|chat_template.*|vocab\..*|merges\.txt|.*\.model|.*\.bpe"
)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def is_shard(name: str) -> bool:
    """Whether a file of this name is one of several weight files."""
    return _SHARD.fullmatch(name) is not None


def is_written_by_save(name: str) -> bool:
    """Whether `save` may have written a file of this name, tokenizer files apart: the next `save` replaces it."""
    fixed = (CONFIG, GENERATION_CONFIG, MANIFEST, WEIGHTS, INDEX, RECIPE, CARD, VERIFICATION)
    return name in fixed or is_shard(name)


def is_written_with_tokenizer(name: str) -> bool:
    """The same where `save` is given a tokenizer: files of the one before would change what the new one says."""
    return is_written_by_save(name) or _OF_TOKENIZER.fullmatch(name) is not None


def column_dtype(in_features: int) -> str:
    """Type of `col_indices`: the narrowest that holds every column there could be."""
    return "U8" if in_features <= 2**8 else "U16" if in_features <= 2**16 else "U32"


def offset_dtype(most: int) -> str:
    """Type of `crow_indices`, which count up to the number of entries, and of `zeros`, up to the size of the weight."""
    return "U32" if most < 2**32 else "I64"


#: How a sparse weight may be stored: in CSR, with a bit for each place, or as a dense array. The first one where
#: several take as many bytes.
FORMS = ("csr", "bitmask", "dense")
#: Arrays of one form or another, by the last part of their names.
PLACES = ("crow_indices", "col_indices", "mask", "zeros")


def weight_arrays(
    shape: tuple[int, int], dtype: str, nnz: int, form: str = "csr", zeros: int = 0
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Types and shapes of the arrays that hold a sparse weight, by the last part of their names.

    Args:
        shape: out_features, in_features.
        dtype: of the stored weights.
        nnz: number of entries.
        form: one of `FORMS`.
        zeros: number of entries that are zero; they are listed in a dense array where some places are no entries.
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
    """Values of int4 lie two in a byte."""
    count = math.prod(shape) if form == "dense" else nnz
    if dtype == "int4":
        return ((count + 1) // 2,)
    return shape if form == "dense" else (nnz,)


def nbytes_of(arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Bytes of arrays of these types and shapes."""
    return sum(BY_SAFETENSORS[dtype].nbytes * math.prod(shape) for dtype, shape in arrays.values())


#: Types of the arrays that hold embeddings in int8, by the last part of their names.
EMBEDDING_ARRAYS = {"codes": "I8", "scales": "F32"}
