"""Read an encoder's tensors by the names of its family."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sparsekit.engine.compiled_file import NO_LAYER, Tensor
from sparsekit.engine.embedding_tensors import matrix, table_tensor
from sparsekit.engine.encoder_config import EncoderConfig
from sparsekit.engine.encoder_families import BIASES, LINEARS, NORMS, TABLES, Head
from sparsekit.engine.encoder_rotary import RotaryConfig
from sparsekit.engine.linear_tensors import LayerLinear, linear_tensors, stored_vector
from sparsekit.engine.module_names import ModuleNames, part_of
from sparsekit.engine.positions import BUCKETS, distance_biases, rotary_frequencies, rotary_table
from sparsekit.engine.refusals import refusal
from sparsekit.engine.relative_tensors import relative_tensors
from sparsekit.engine.weights import Part, Weights

#: Position and type ids that older versions of transformers stored as buffers.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


class EncoderTensors:
    """Reads the tensors of an encoder.

    Args:
        config: of the model.
        weights: weights of the model, or of one that contains the encoder.

    Raises:
        ValueError: there is no encoder of this family or several, or it has unknown tensors.
    """

    def __init__(self, config: EncoderConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self._names = ModuleNames(config.family.modules, weights.names)
        self._prefix = self._names.prefix
        self._modules = list(self._names.all(config.layers, config.has))
        self._check_names()
        self._heads: int | None = None  # that biases by distance have

    def _check_names(self) -> None:
        """Refuse unknown tensors, which might change what the model computes."""
        roots = tuple(
            {self._prefix + module.partition(".")[0] + "." for module in self._config.family.modules.values()}
        )
        own = {name for name in self._weights.names if name.startswith(roots)}
        known = {f"{module}.weight" for _, _, module in self._modules}
        known |= {f"{self._names.of(kind)}.weight" for kind in self._config.family.ignored}
        known |= {f"{module}.bias" for _, kind, module in self._modules if kind not in self._config.without_bias}
        left = sorted(own - known - {self._prefix + name for name in _BUFFERS})
        if left:
            raise refusal(f"models of {self._config.layers} layers, as config.json says, with tensors like {left[0]!r}")

    def linears(self) -> Iterator[LayerLinear]:
        """Linear layers of the transformer blocks, in their order."""
        for layer, kind, module in self._modules:
            if kind in LINEARS and layer != NO_LAYER:
                yield LayerLinear(layer, kind, module, self._part(kind))

    def module_names(self, head: Head | None) -> dict[tuple[int, str], str]:
        """Module that each tensor comes from, by layer (or `NO_LAYER`) and role.

        Args:
            head: head of the model; None leaves it out.
        """
        found = {(layer, kind): module for layer, kind, module in self._modules}
        of_head = {} if head is None else {"head_dense": head.dense, "classifier": head.classifier}
        heads = {(NO_LAYER, role): name.format(encoder=self._prefix) for role, name in of_head.items() if name}
        return found | heads

    def read(self, dtype: str, embeddings: str | None) -> Iterator[Tensor]:
        """Read all tensors.

        Args:
            dtype: type of dense linear layers.
            embeddings: type of word embeddings, "float32" or "int8"; None for the stored type.

        Raises:
            ValueError: a tensor is missing or damaged, or has a shape that an encoder's cannot have.
        """
        for layer, kind, module in self._modules:
            if kind in TABLES:
                yield self._table(kind, module, embeddings)
            elif kind in BIASES:
                yield self._biases(kind, module)
            elif kind in NORMS:
                yield from self._norm(layer, kind, module)
            elif kind in LINEARS:
                yield from self._linear(layer, kind, module, dtype)
        if self._config.rotary is not None:
            yield from self._rotary(self._config.rotary)
        if self._config.relative is not None:
            relative, layers, eps = self._config.relative, self._config.layers, self._config.norm_eps
            yield from relative_tensors(relative, layers, eps, self._weights, self._names.of)

    def read_head(self, head: Head, dtype: str) -> Iterator[Tensor]:
        """Read the tensors of the model's head; a dense last layer is stored as float32.

        Args:
            head: the model's head.
            dtype: type of the layer before the last, if it is dense.

        Raises:
            ValueError: as `read`.
        """
        if head.dense is not None:
            name = head.dense.format(encoder=self._prefix)
            yield from linear_tensors(self._weights, NO_LAYER, "head_dense", name, dtype, head.activation)
        if head.norm is not None:
            yield from self._norm(NO_LAYER, "head_norm", head.norm)
        name = head.classifier.format(encoder=self._prefix)
        yield from linear_tensors(self._weights, NO_LAYER, "classifier", name, "float32")

    def _table(self, kind: str, module: str, embeddings: str | None) -> Tensor:
        """An embedding table; only word embeddings change their type."""
        dtype = embeddings if kind == "word_embeddings" or embeddings == "float32" else None
        columns = None if self._config.rotary is None else self._config.features
        return table_tensor(self._weights, kind, module, dtype, columns)

    def _biases(self, kind: str, module: str) -> Tensor:
        """Bias of each head for every distance between positions."""
        buckets = matrix(self._weights, f"{module}.weight")
        if len(buckets) != BUCKETS:
            raise ValueError(f"{module + '.weight'!r} must have {BUCKETS} rows, got {len(buckets)}")
        positions = self._names.of("position_embeddings")
        tokens = len(matrix(self._weights, f"{positions}.weight")) - self._config.first_position
        if tokens < 1:
            raise ValueError(f"{positions + '.weight'!r} must have more than {self._config.first_position} rows")
        self._heads = buckets.shape[1]
        return Tensor.of_floats(NO_LAYER, kind, distance_biases(buckets, tokens))

    def _check_heads(self, module: str, out_features: int) -> None:
        """Refuse layers with different numbers of heads, since they share the biases by distance."""
        heads = out_features // self._config.head_dim
        if self._heads not in (None, heads):
            raise refusal(f"layers with fewer heads than others beside biases by distance: {module!r} has {heads}, "
                          f"the biases are of {self._heads}")  # fmt: skip

    def _rotary(self, rotary: RotaryConfig) -> Iterator[Tensor]:
        """Rotary tables, and window sizes if a layer has one."""
        yield Tensor.of_floats(NO_LAYER, "rotary", self._rotary_table(rotary.base, rotary.positions))
        if any(rotary.windows):
            local = self._rotary_table(rotary.local_base, rotary.positions)
            yield Tensor.of_floats(NO_LAYER, "local_rotary", local)
            yield Tensor.of_floats(NO_LAYER, "windows", np.array(rotary.windows, np.float32))

    def _rotary_table(self, base: float, positions: int) -> NDArray[np.float32]:
        return rotary_table(rotary_frequencies(base, self._config.head_dim), positions)

    def _norm(self, layer: int, kind: str, module: str) -> Iterator[Tensor]:
        yield stored_vector(self._weights, layer, f"{kind}_weight", f"{module}.weight")
        if kind not in self._config.without_bias:
            yield stored_vector(self._weights, layer, f"{kind}_bias", f"{module}.bias")

    def _part(self, kind: str) -> Part:
        """Which rows of a module a linear layer has."""
        return part_of(self._config.family.modules, kind)

    def _linear(self, layer: int, kind: str, module: str, dtype: str) -> Iterator[Tensor]:
        part = self._part(kind)
        activation = self._config.activation if kind == "up" and part.whole else None
        weight, *bias = linear_tensors(self._weights, layer, kind, module, dtype, activation, part)
        if kind == "query":
            self._check_heads(module, weight.rows)
        yield weight
        yield from bias
