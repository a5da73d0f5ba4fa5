"""The layout of a model folder: its files, and the arrays of each sparse layer."""

from __future__ import annotations

import re

from sparsekit.formats.dtypes import BY_NAME
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


def row_dtype(nnz: int) -> str:
    """Type of `crow_indices`."""
    return "U32" if nnz < 2**32 else "I64"


def weight_arrays(shape: tuple[int, int], dtype: str, nnz: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Types and shapes of the arrays that hold a sparse weight, by the last part of their names."""
    out_features, in_features = shape
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {
        "crow_indices": (row_dtype(nnz), (out_features + 1,)),
        "col_indices": (column_dtype(in_features), (nnz,)),
        "values": (BY_NAME[dtype].safetensors, (nnz,)),
    }
    if dtype == "int8":
        arrays["scales"] = ("F32", (out_features,))
    return arrays


#: Types of the arrays that hold embeddings in int8, by the last part of their names.
EMBEDDING_ARRAYS = {"codes": "I8", "scales": "F32"}
