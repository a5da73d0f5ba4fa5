"""The tensors of an encoder, found by the names of its family."""

from __future__ import annotations

from collections.abc import Iterator

from sparsekit.engine.compiled_file import NO_LAYER, Tensor, scaled_rows
from sparsekit.engine.encoder_config import EncoderConfig, refusal
from sparsekit.engine.families import LINEARS, NORMS, TABLES, Head
from sparsekit.engine.linear_tensors import check_name, linear_tensors, stored_vector
from sparsekit.engine.weights import Weights

#: Buffers that older versions of transformers stored; they hold 0, 1, 2, ... and zeros.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


class EncoderTensors:
    """Reads the tensors of an encoder.

    Args:
        config: of the model.
        weights: of the model, or of one that contains the encoder.

    Raises:
        ValueError: there is no encoder of this family, or several; it has tensors that the engine has no use for.
    """

    def __init__(self, config: EncoderConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights
        self._prefix = self._find_prefix()
        if config.layers > len(weights.names):
            raise ValueError(
                f"config.json says {config.layers} layers, the weight files hold {len(weights.names)} tensors"
            )
        self._modules = [
            (NO_LAYER if layer is None else layer, kind, self._prefix + module.format(layer=layer))
            for layer in (None, *range(config.layers))
            for kind, module in config.family.modules.items()
            if (layer is None) == ("{layer}" not in module)
        ]
        self._check_names()

    def _find_prefix(self) -> str:
        """What precedes the names of the encoder's tensors, such as "bert."."""
        words = self._config.family.modules["word_embeddings"] + ".weight"
        found = [name.removesuffix(words) for name in self._weights.names if f".{name}".endswith(f".{words}")]
        if len(found) != 1:
            raise ValueError(f"expected one tensor {words!r}, got {len(found)}; is config.json that of the weights?")
        return found[0]

    def _check_names(self) -> None:
        """Refuse tensors that are not read: they might change what the model computes."""
        roots = tuple(
            {self._prefix + module.partition(".")[0] + "." for module in self._config.family.modules.values()}
        )
        own = {name for name in self._weights.names if name.startswith(roots)}
        known = {f"{module}.{part}" for _, _, module in self._modules for part in ("weight", "bias")}
        left = sorted(own - known - {self._prefix + name for name in _BUFFERS})
        if left:
            raise refusal(f"models of {self._config.layers} layers, as config.json says, with tensors like {left[0]!r}")

    def read(self, dtype: str, embeddings: str) -> Iterator[Tensor]:
        """All tensors.

        Args:
            dtype: of linear layers that are dense in the model.
            embeddings: of word embeddings, "float32" or "int8".

        Raises:
            ValueError: a tensor is missing or damaged, or has a shape that an encoder's cannot have.
        """
        for layer, kind, module in self._modules:
            if kind in TABLES:
                yield self._table(layer, kind, module, embeddings)
            elif kind in NORMS:
                yield stored_vector(self._weights, layer, f"{kind}_weight", f"{module}.weight")
                yield stored_vector(self._weights, layer, f"{kind}_bias", f"{module}.bias")
            elif kind in LINEARS:
                activation = self._config.activation if kind == "up" else None
                yield from linear_tensors(self._weights, layer, kind, module, dtype, activation)

    def read_head(self, head: Head, dtype: str) -> Iterator[Tensor]:
        """The tensors of the model's head; its last layer is float32 where it is dense in the model.

        Args:
            head: of the model.
            dtype: of the layer before the last, if that is dense in the model.

        Raises:
            ValueError: as `read`.
        """
        if head.dense is not None:
            name = head.dense.format(encoder=self._prefix)
            yield from linear_tensors(self._weights, NO_LAYER, "head_dense", name, dtype, head.activation)
        name = head.classifier.format(encoder=self._prefix)
        yield from linear_tensors(self._weights, NO_LAYER, "classifier", name, "float32")

    def _table(self, layer: int, kind: str, module: str, embeddings: str) -> Tensor:
        name = f"{module}.weight"
        check_name(self._weights, name)
        values = self._weights.floats(name)
        if values.ndim != 2:
            raise ValueError(f"{name!r} must have two dimensions, got shape {list(values.shape)}")
        if embeddings == "int8" and kind == "word_embeddings":
            return scaled_rows(layer, kind, values)
        return Tensor.of_floats(layer, kind, values)
