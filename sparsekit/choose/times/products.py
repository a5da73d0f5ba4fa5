"""The products of a model: what the engine multiplies its transformer blocks' weights with, call by call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sparsekit.choose.times.calls import Call, Group, groups_of
from sparsekit.engine.compiling import head_and_pooling, is_decoder
from sparsekit.engine.decoder_config import read_decoder_config
from sparsekit.engine.decoder_tensors import DecoderTensors
from sparsekit.engine.encoder_config import read_config
from sparsekit.engine.encoder_tensors import EncoderTensors
from sparsekit.engine.layouts import Layouts
from sparsekit.engine.linear_tensors import JOINED, LayerLinear, check_name
from sparsekit.engine.sentence_modules import read_modules
from sparsekit.engine.weights import Weights, open_weights
from sparsekit.io.file_names import CONFIG, MANIFEST
from sparsekit.io.hub_cache import local_folder
from sparsekit.io.untrusted import read_object, regular_file

#: Kinds of linear layers that every transformer block computes for all tokens: what others attend to.
_STORED = ("key", "value")


@dataclass(frozen=True)
class Shape:
    """Sizes of the weights of a product, which have the same input."""

    out_features: tuple[int, ...]
    in_features: int

    @property
    def weights(self) -> int:
        """Their number."""
        return sum(self.out_features) * self.in_features


@dataclass(frozen=True)
class Factor:
    """A weight of a product: a linear layer of the model, or some of its rows.

    Attributes:
        layer: name of the linear layer, as the model's weight files have it.
        out_features: its rows in this product.
    """

    layer: str
    out_features: int


@dataclass(frozen=True)
class Product:
    """Weights that the engine multiplies with one input, in one call.

    Attributes:
        factors: the weights.
        in_features: of all of them.
        by_text: whether it is computed for one token of each text, as the last transformer block may be behind its
            attention; else for all tokens.
    """

    factors: tuple[Factor, ...]
    in_features: int
    by_text: bool

    @property
    def shape(self) -> Shape:
        """Sizes of its weights."""
        return Shape(tuple(factor.out_features for factor in self.factors), self.in_features)

    def shares(self) -> dict[str, float]:
        """Each linear layer's part of its weights."""
        found: dict[str, float] = {}
        rows = sum(factor.out_features for factor in self.factors)
        for factor in self.factors:
            found[factor.layer] = found.get(factor.layer, 0.0) + factor.out_features / rows
        return found

    def tokens_of(self, group: Group) -> int:
        """Tokens that it is computed for, of a group."""
        return group.texts if self.by_text else group.tokens


@dataclass(frozen=True)
class ModelProducts:
    """All products of a model's transformer blocks.

    Attributes:
        products: in the order of the blocks.
        decodes: whether the model is a language model.
    """

    products: tuple[Product, ...]
    decodes: bool

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the linear layers, in the order of the blocks."""
        return tuple(dict.fromkeys(factor.layer for product in self.products for factor in product.factors))

    @cached_property
    def shapes(self) -> Counter[Shape]:
        """Shapes of products, and how many have each."""
        return Counter(product.shape for product in self.products)

    @cached_property
    def weights(self) -> int:
        """Number of weights in all products."""
        return sum(shape.weights * count for shape, count in self.shapes.items())

    def of_call(self, call: Call, threads: int) -> Iterator[tuple[Product, Counter[int]]]:
        """Each product, with the numbers of tokens it is computed for and how often that is.

        Args:
            call: of the model.
            threads: in use.
        """
        groups = groups_of(call, threads, cuts_texts=self.decodes)
        for product in self.products:
            tokens: Counter[int] = Counter()
            for group, times in groups.items():
                tokens[product.tokens_of(group)] += times
            del tokens[0]
            yield product, tokens


def products_of(folder: Path | str, *, pooling: str | None = None) -> ModelProducts:
    """The products of a model as the engine runs it.

    Projections of positions (DeBERTa) are none: the engine multiplies them when it compiles the model.

    Args:
        folder: a dense model folder of transformers or sentence-transformers, or the name of a model in the local hub
            cache.
        pooling: as in `compile_model`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the engine does not run the model, the folder is damaged or holds a model of `sparsekit.save`.
    """
    folder = local_folder(folder)
    modules = read_modules(folder)
    if (modules.encoder / MANIFEST).exists():
        raise ValueError(f"{modules.encoder} must be a folder of transformers, got one of sparsekit.save; "
                         "give the dense model that it was made of")  # fmt: skip
    weights = open_weights(modules.encoder, Layouts())
    config = read_object(regular_file(modules.encoder, CONFIG))
    if is_decoder(folder):
        decoder = read_decoder_config(config)
        linears = DecoderTensors(decoder, weights).linears()
        return ModelProducts(_products(linears, weights, decoder.layers - 1, _STORED), decodes=True)
    encoder = read_config(config)
    _, pooling = head_and_pooling(encoder, pooling or modules.pooling)
    last = encoder.layers - 1 if pooling == "cls" else None
    linears = EncoderTensors(encoder, weights).linears()
    return ModelProducts(_products(linears, weights, last, ("query", *_STORED)), decodes=False)


def _products(
    linears: Iterable[LayerLinear], weights: Weights, last: int | None, of_all_tokens: Sequence[str]
) -> tuple[Product, ...]:
    """Linear layers, joined as the core joins them.

    Args:
        linears: in the order of the transformer blocks.
        weights: of the model.
        last: number of the transformer block that goes on with one token of each text; None for none.
        of_all_tokens: kinds of linear layers that it computes for all of them.
    """
    found: dict[tuple[int, tuple[str, ...], bool], list[LayerLinear]] = {}
    for one in linears:
        by_text = one.layer == last and one.kind not in of_all_tokens
        found.setdefault((one.layer, _joined_with(one.kind), by_text), []).append(one)
    return tuple(_product(joined, weights, by_text) for (_, _, by_text), joined in found.items())


def _joined_with(kind: str) -> tuple[str, ...]:
    return next((kinds for kinds in JOINED if kind in kinds), (kind,))


def _product(joined: Sequence[LayerLinear], weights: Weights, by_text: bool) -> Product:
    """One product of several linear layers.

    Raises:
        ValueError: a weight is missing or damaged, or their sizes differ.
    """
    factors, in_features = [], set()
    for one in joined:
        check_name(weights, f"{one.module}.weight")
        out, into = one.part.of(one.module, weights.floats(f"{one.module}.weight")).shape
        factors.append(Factor(one.module, out))
        in_features.add(into)
    if len(in_features) != 1:
        names = ", ".join(dict.fromkeys(repr(factor.layer) for factor in factors))
        raise ValueError(f"weights of {names} must have the same in_features, got {sorted(in_features)}")
    return Product(tuple(factors), in_features.pop(), by_text)
