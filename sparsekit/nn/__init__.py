"""Sparse layers as torch modules."""

from sparsekit.nn.attention import use_attention
from sparsekit.nn.joined_linear import JoinedLinear
from sparsekit.nn.sparse_linear import SparseLinear

__all__ = ["JoinedLinear", "SparseLinear", "use_attention"]
