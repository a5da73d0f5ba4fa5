"""`Int8Embedding`: a drop-in for `torch.nn.Embedding` at inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from sparsekit.formats.dtypes import FLOATS, dtype_name
from sparsekit.formats.quantization import quantize_rows
from sparsekit.formats.tensors import as_array
from sparsekit.nn.absent_weight import AbsentTable, absent_weight


def why_not_int8(embedding: nn.Module) -> str:
    """Why embeddings cannot be stored in int8, whatever their values; empty if possible."""
    cls = parametrize.type_before_parametrizations(embedding)
    if not isinstance(embedding, nn.Embedding) or cls is not nn.Embedding:
        return f"{cls.__name__} may compute something else than torch.nn.Embedding"
    if parametrize.is_parametrized(embedding):
        return "its weight is masked or otherwise parametrized; call finalize(model) first"
    if embedding.max_norm is not None:
        return f"its max_norm of {embedding.max_norm} changes rows as they are looked up"
    if embedding.scale_grad_by_freq or embedding.sparse:
        return "its gradients are scaled by frequency or sparse, and a table in int8 has none"
    if dtype_name(embedding.weight.dtype) not in FLOATS:
        return f"its weight is {embedding.weight.dtype}, expected one of {', '.join(FLOATS)}"
    return ""


class Int8Embedding(nn.Module):
    """Embeddings with a frozen table in int8 and a float32 scale for each row: `codes[input] * scales[input]`.

    Products are rounded to float32, then to `output_dtype`, which follows `module.to`; codes and scales stay int8 and
    float32. The state dict has both.

    Args:
        num_embeddings: number of rows.
        embedding_dim: features of a row.
        padding_idx: row of padding; kept only for code that reads it, as the table is frozen.
        output_dtype: type of the output vectors.

    Create one from an `nn.Embedding` with `from_embedding`.

    >>> embedding = nn.Embedding(5, 4)
    >>> compressed = Int8Embedding.from_embedding(embedding)
    >>> compressed
    Int8Embedding(5, 4)
    >>> ids = torch.tensor([[1, 4, 1]])
    >>> bool(((compressed(ids) - embedding(ids)).abs() <= compressed.scales[ids].unsqueeze(-1)).all())
    True
    """

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        output_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.output_dtype = output_dtype
        self.register_buffer("codes", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(num_embeddings, dtype=torch.float32))

    @classmethod
    def like(cls, embedding: nn.Embedding) -> Self:
        """Zero embeddings of the same shape, to load a state dict into.

        Raises:
            ValueError: they cannot be stored in int8.
        """
        reason = why_not_int8(embedding)
        if reason:
            raise ValueError(f"these embeddings cannot be stored in int8: {reason}")
        with embedding.weight.device:
            new = cls(embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx, embedding.weight.dtype)
        return new.train(embedding.training)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding) -> Self:
        """Quantize an `nn.Embedding`: the largest magnitude of each row becomes 127.

        Args:
            embedding: the embedding, which is not changed.

        Raises:
            ValueError: they cannot be stored in int8, or a value is not finite.
        """
        new = cls.like(embedding)
        try:
            codes, scales = quantize_rows(as_array("weight", embedding.weight.detach().float()))
        except ValueError as error:
            raise ValueError(f"the weight of embeddings {error}") from error
        new.codes, new.scales = (torch.from_numpy(part).to(embedding.weight.device) for part in (codes, scales))
        return new

    def to_embedding(self) -> nn.Embedding:
        """`nn.Embedding` with the dequantized values, in `output_dtype`."""
        dense = nn.Embedding(self.num_embeddings, self.embedding_dim, padding_idx=self.padding_idx, device="meta")
        dense.weight = nn.Parameter((self.codes * self.scales.unsqueeze(1)).to(self.output_dtype))
        return dense.train(self.training)

    @property
    def weight(self) -> torch.Tensor:
        """Shape, dtype and device of the table, for code that reads them; using values raises RuntimeError."""
        shape = self.num_embeddings, self.embedding_dim
        return absent_weight(shape, self.output_dtype, self.codes.device, AbsentTable)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look rows up.

        Args:
            input: integers from 0 to `num_embeddings` - 1, any shape.

        Returns:
            `output_dtype`, shape [..., embedding_dim].

        Raises:
            IndexError: an index is out of range.
        """
        scales = F.embedding(input, self.scales.unsqueeze(1))
        return (F.embedding(input, self.codes) * scales).to(self.output_dtype)

    def extra_repr(self) -> str:
        """Sizes, as `print(model)` shows them."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        dtype = "" if self.output_dtype == torch.float32 else f", output_dtype={self.output_dtype}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{dtype}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move codes and scales to a device, but change only the type of the output."""
        scales = self.scales
        self.output_dtype = fn(torch.empty(0, dtype=self.output_dtype, device=scales.device)).dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scales.dtype != torch.float32:
            self.scales = scales.to(self.scales.device)
        return self
