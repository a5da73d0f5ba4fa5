"""Compressed layers and embeddings as torch modules."""

from typing import TypeAlias

from sparsekit.nn.attention import use_attention
from sparsekit.nn.int8_embedding import Int8Embedding
from sparsekit.nn.joined_linear import JoinedLinear
from sparsekit.nn.sparse_linear import SparseLinear

#: Modules that replace dense ones, and that plain transformers folders cannot store.
Compressed: TypeAlias = SparseLinear | Int8Embedding

__all__ = ["Compressed", "Int8Embedding", "JoinedLinear", "SparseLinear", "use_attention"]
