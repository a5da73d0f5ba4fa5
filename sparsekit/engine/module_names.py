"""Names of a family's modules in a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set

from sparsekit.engine.compiled_file import NO_LAYER
from sparsekit.engine.weights import Part


class ModuleNames:
    """Names of a family's modules in a model.

    Args:
        modules: the family's modules: kind -> name, with `{layer}` for the layer's number.
        names: names of the model's tensors.

    `prefix` is the prefix of all names, such as "bert.".

    Raises:
        ValueError: there are no word embeddings or several.
    """

    def __init__(self, modules: Mapping[str, str], names: Set[str]) -> None:
        self._modules = modules
        words = modules["word_embeddings"] + ".weight"
        found = [name.removesuffix(words) for name in names if f".{name}".endswith(f".{words}")]
        if len(found) != 1:
            raise ValueError(f"expected one tensor {words!r}, got {len(found)}; is config.json that of the weights?")
        self.prefix = found[0]
        self._tensors = len(names)

    def of(self, kind: str, layer: int | None = None) -> str:
        """Name of a module, in a layer or outside the layers."""
        return self.prefix + self._modules[kind].format(layer=layer)

    def all(self, layers: int, has: Callable[[str, int | None], bool]) -> Iterator[tuple[int, str, str]]:
        """Layer or `NO_LAYER`, kind and name of every module.

        Args:
            layers: number of layers.
            has: whether the model has a module, given its kind and layer (None outside the layers).

        Raises:
            ValueError: there are fewer tensors than layers.
        """
        if layers > self._tensors:
            raise ValueError(f"config.json says {layers} layers, the weight files hold {self._tensors} tensors")
        for layer in (None, *range(layers)):
            for kind, module in self._modules.items():
                if has(kind, layer) and (layer is None) == ("{layer}" not in module):
                    yield NO_LAYER if layer is None else layer, kind, self.of(kind, layer)


def part_of(modules: Mapping[str, str], kind: str, shares: Mapping[str, int] | None = None) -> Part:
    """Rows of a fused module that belong to a linear layer: kinds with the same name are concatenated.

    Args:
        modules: the family's modules.
        kind: the linear layer.
        shares: kind of linear layer -> its number of equal parts, 1 by default.
    """
    sharing = [other for other, module in modules.items() if module == modules[kind]]
    sizes = [1 if shares is None or len(sharing) == 1 else shares.get(other, 1) for other in sharing]
    place = sharing.index(kind)
    return Part(sum(sizes[:place]), sum(sizes[: place + 1]), sum(sizes))
