"""Read a decoder's tensors by the names of its family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sparsekit.engine.compiled_file import NO_LAYER, Tensor
from sparsekit.engine.decoder_config import DecoderConfig
from sparsekit.engine.decoder_families import ATTENTION_LINEARS, DECODER_NORMS, FEED_FORWARD_LINEARS
from sparsekit.engine.embedding_tensors import matrix, table_tensor, tied_tensor
from sparsekit.engine.linear_tensors import LayerLinear, check_name, linear_tensors, stored_vector
from sparsekit.engine.module_names import ModuleNames, part_of
from sparsekit.engine.refusals import refusal
from sparsekit.engine.weights import Part, Weights

_LINEARS = (*ATTENTION_LINEARS, *FEED_FORWARD_LINEARS)


class DecoderTensors:
    """Reads the tensors of a decoder.

    Args:
        config: of the model.
        weights: of the model.

    Raises:
        ValueError: a tensor is missing, or there are unknown ones.
    """

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self._names = ModuleNames(config.family.modules, weights.names)
        self._modules = list(self._names.all(config.layers, lambda kind, layer: True))
        heads = config.family.heads
        self._head = next((name for name in heads if f"{name}.weight" in weights.names), heads[0])
        self._groups: dict[int, int] = {}  # key-value heads of each layer
        self._check_names()
        self._check_head()

    def _arrays(self) -> Iterator[str]:
        """Names of all tensors to read."""
        for _, kind, module in self._modules:
            yield f"{module}.weight"
            if self._has_bias(kind):
                yield f"{module}.bias"
        if not self._config.tied:
            yield f"{self._head}.weight"

    def _has_bias(self, kind: str) -> bool:
        return kind in self._config.with_bias or (kind in DECODER_NORMS and self._config.has_layer_norm)

    def _check_names(self) -> None:
        """Refuse missing tensors, and unknown ones, which might change what the model computes."""
        wanted = list(dict.fromkeys(self._arrays()))
        for name in wanted:
            check_name(self._weights, name)
        buffers = {
            self._names.prefix + name.format(layer=layer)
            for layer in range(self._config.layers)
            for name in self._config.family.buffers
        }
        left = sorted(set(self._weights.names) - set(wanted) - buffers - {f"{self._head}.weight"})
        if left:
            raise refusal(f"models of {self._config.layers} layers, as config.json says, with tensors like {left[0]!r}")

    def _check_head(self) -> None:
        """Refuse a stored head that differs from the word embeddings it is tied to."""
        name = f"{self._head}.weight"
        if self._config.tied and name in self._weights.names:
            words = matrix(self._weights, f"{self._names.of('word_embeddings')}.weight")
            if not np.array_equal(matrix(self._weights, name), words, equal_nan=True):
                raise refusal(f"a {name!r} that differs from the word embeddings beside tie_word_embeddings=True")

    def linears(self) -> Iterator[LayerLinear]:
        """Linear layers of the transformer blocks, in their order."""
        for layer, kind, module in self._modules:
            if kind in _LINEARS:
                yield LayerLinear(layer, kind, module, self._part(kind))

    def read(self, dtype: str, embeddings: str | None) -> Iterator[Tensor]:
        """Read all tensors.

        Args:
            dtype: type of dense linear layers and of an untied head.
            embeddings: type of word embeddings and a tied head: "float32", "int8" or "int4"; None for the stored type,
                float32 if the head is tied.

        Raises:
            ValueError: a tensor is missing or damaged, or has a shape that a decoder's cannot have.
        """
        for layer, kind, module in self._modules:
            if kind == "word_embeddings":
                yield self._words(module, embeddings)
            elif kind == "position_embeddings":
                yield table_tensor(self._weights, kind, module, "float32", self._config.features)
            elif kind in DECODER_NORMS:
                yield from self._norm(layer, kind, module)
            elif kind in _LINEARS:
                yield from self._linear(layer, kind, module, dtype)
        if not self._config.tied:
            yield from linear_tensors(self._weights, NO_LAYER, "head", self._head, dtype)
        yield from self._positions()

    def _words(self, module: str, embeddings: str | None) -> Tensor:
        read = tied_tensor if self._config.tied else table_tensor
        tensor = read(self._weights, "word_embeddings", module, embeddings, self._config.features)
        if tensor.rows != self._config.vocabulary:
            raise ValueError(f"{module + '.weight'!r} must have {self._config.vocabulary} rows, as vocab_size of "
                             f"config.json says, got {tensor.rows}")  # fmt: skip
        return tensor

    def _norm(self, layer: int, kind: str, module: str) -> Iterator[Tensor]:
        """A norm's weight, including the offset that the family adds (Gemma's 1 + weight)."""
        weight = stored_vector(self._weights, layer, f"{kind}_weight", f"{module}.weight")
        offset = np.float32(self._config.family.norm_offset)
        yield Tensor.of_floats(layer, weight.role, weight.data.view(np.float32) + offset)
        if self._config.has_layer_norm:
            yield stored_vector(self._weights, layer, f"{kind}_bias", f"{module}.bias")

    def _part(self, kind: str) -> Part:
        """Rows of a fused module that belong to a linear layer; grouped queries take several parts."""
        family, heads = self._config.family, self._config.heads // self._config.key_heads
        part = part_of(family.modules, kind, {"query": heads})
        period = part.count * self._config.head_dim if family.interleaved and part.count > 1 else 0
        return replace(part, period=period, transposed=family.transposed)

    def _linear(self, layer: int, kind: str, module: str, dtype: str) -> Iterator[Tensor]:
        part = self._part(kind)
        activation = self._config.activation if kind == "up" and part.whole else None
        weight, *bias = linear_tensors(self._weights, layer, kind, module, dtype, activation, part)
        if kind in ("query", "key", "value"):
            self._check_heads(layer, kind, module, weight.rows)
        yield weight
        yield from bias

    def _check_heads(self, layer: int, kind: str, module: str, rows: int) -> None:
        """Refuse layers whose query heads per key-value head are not as configured; layers may have lost heads."""
        config = self._config
        size = config.head_dim * (config.heads // config.key_heads if kind == "query" else 1)
        if rows % size or self._groups.setdefault(layer, rows // size) != rows // size:
            raise ValueError(f"{kind} of {module!r} must have {size} rows for each key-value head, as config.json "
                             f"says, got {rows}")  # fmt: skip

    def _positions(self) -> Iterator[Tensor]:
        """Rotary tables, the table of each layer, and window sizes."""
        positions = self._config.positions
        if positions.rotary is not None:
            yield Tensor.of_floats(NO_LAYER, "rotary", positions.rotary.table())
            yield Tensor.of_floats(NO_LAYER, "rotary_kinds", np.array(positions.rotary_kinds, np.float32))
        if positions.local_rotary is not None:
            yield Tensor.of_floats(NO_LAYER, "local_rotary", positions.local_rotary.table())
        if any(positions.windows):
            yield Tensor.of_floats(NO_LAYER, "windows", np.array(positions.windows, np.float32))
