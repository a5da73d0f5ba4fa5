"""Base class of split modules: linear layers in place of the parameters that hold their matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Matrix:
    """One weight matrix inside a module's parameters, and its bias."""

    layer: str  # name of the linear layer that replaces it
    parameter: str  # parameter with `count` matrices of one size, [count, rows, columns] or [count * rows, columns]
    index: int = 0
    count: int = 1
    turned: bool = False  # whether they are transposed, [in_features, out_features]
    flat: bool = False  # a single matrix, with all dimensions but the first flattened into columns
    bias: str | None = None  # parameter that holds biases
    bias_index: int | None = None  # index in that parameter; None: as for the weight
    bias_count: int | None = None

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """View [out_features, in_features] of a tensor of the parameter's shape."""
        stacked = tensor.view(self.count, -1, tensor[0].numel() if self.flat else tensor.shape[-1])
        found = stacked[self.index]
        return found.T if self.turned else found

    def bias_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """View [out_features] of a tensor of the bias's shape."""
        index = self.index if self.bias_index is None else self.bias_index
        return tensor.view(self.bias_count or self.count, -1)[index]


def stored_parameter(module: nn.Module, path: str) -> nn.Parameter:
    """The parameter at a dotted path, also under a mask."""
    within, _, name = path.rpartition(".")
    owner: Any = module.get_submodule(within)
    found = owner.parametrizations[name].original if parametrize.is_parametrized(owner, name) else None
    return cast(nn.Parameter, owner._parameters[name] if found is None else found)


def shape_of(module: nn.Module, path: str) -> tuple[int, ...]:
    """Shape of the parameter at a dotted path, masked or not; empty if there is none, or if it is computed."""
    within, _, name = path.rpartition(".")
    try:
        owner = module.get_submodule(within)
    except AttributeError:
        return ()
    if parametrize.is_parametrized(owner, name):
        steps: Any = owner.parametrizations
        is_masked = all(isinstance(getattr(step, "mask", None), torch.Tensor) for step in steps[name])
        return tuple(steps[name].original.shape) if is_masked else ()
    found = owner._parameters.get(name)
    return () if found is None else tuple(found.shape)


def stack(layer: str, parameter: str, count: int, *, turned: bool = False, bias: str | None = None) -> list[Matrix]:
    """The `count` matrices of a parameter, as layers `LAYER.0`, `LAYER.1`, ..."""
    return [Matrix(f"{layer}.{index}", parameter, index, count, turned, bias=bias) for index in range(count)]


def _without(module: nn.Module, paths: Iterable[str]) -> nn.Module:
    """A shallow copy of a module without the parameters at these paths."""
    cls: type[nn.Module] = parametrize.type_before_parametrizations(module)
    shell = cls.__new__(cls)
    shell.__dict__.update(vars(module))
    for kind in ("_parameters", "_buffers", "_modules"):
        shell.__dict__[kind] = dict(getattr(module, kind))
    shell._modules.pop("parametrizations", None)
    inside: dict[str, list[str]] = {}
    for path in paths:
        child, _, rest = path.partition(".")
        if rest:
            inside.setdefault(child, []).append(rest)
        else:
            shell._parameters.pop(child, None)
    for child, rests in inside.items():
        shell._modules[child] = _without(module._modules[child], rests)  # type: ignore[arg-type]
    return shell


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, like: nn.Parameter, training: bool) -> nn.Linear:
    layer = nn.Linear.__new__(nn.Linear)  # the constructor would initialize weights, for each of 10,000 experts
    nn.Module.__init__(layer)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.detach(), requires_grad=like.requires_grad)
    new = None if bias is None else nn.Parameter(bias.detach(), requires_grad=bias.requires_grad)
    layer.register_parameter("bias", new)
    return layer.train(training)


class LayerStack(nn.Module):
    """Layers by index. Not an `nn.ModuleList`, which could be mistaken for the model's transformer blocks."""

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, number: int) -> nn.Module:
        return self.get_submodule(str(number))

    def __iter__(self) -> Iterator[nn.Module]:
        return self.children()


def is_routed(model: nn.Module, layer: str) -> bool:
    """Whether a layer runs only on the tokens that are routed to it, possibly none."""
    parts = layer.split(".")
    holders = (model.get_submodule(".".join(parts[:length])) for length in range(len(parts)))
    return any(isinstance(holder, SplitModule) and holder.routes for holder in holders)


class SplitModule(nn.Module):
    """A module whose matrices are linear layers; everything else comes from the original module.

    Attributes:
        shell: the original module without the parameters that were split; not registered as a submodule.
        matrices: the matrix that each layer replaces.
        shapes: shape of every parameter that was split.
        order: names of the original module's parameters.
    """

    #: Whether each call decides which layers run, and on which tokens.
    routes = False
    shell: Any
    matrices: tuple[Matrix, ...]
    shapes: dict[str, tuple[int, ...]]
    order: tuple[str, ...]

    @classmethod
    def find(cls, module: nn.Module) -> list[Matrix]:
        """The matrices of a module of this kind; empty for other modules."""
        raise NotImplementedError

    @classmethod
    def of(cls, module: nn.Module, matrices: Iterable[Matrix]) -> Self:
        """Split a module; the layers share its memory."""
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        own = {name: value for name, value in vars(module).items() if name not in vars(self) and name[0] != "_"}
        self.__dict__.update(own)
        self.__dict__["matrices"] = tuple(matrices)
        cut = list(dict.fromkeys(path for one in self.matrices for path in (one.parameter, one.bias) if path))
        self.__dict__["shapes"] = {path: shape_of(module, path) for path in cut}
        self.__dict__["order"] = tuple(module._parameters)
        self.__dict__["shell"] = _without(module, cut)  # not by setattr, which would make it a submodule
        for kind in ("_parameters", "_buffers", "_modules"):  # shared dictionaries, so that both see later assignments
            self.__dict__[kind] = vars(self.shell)[kind]
        self._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
        for matrix in self.matrices:
            weight = stored_parameter(module, matrix.parameter)
            bias = None if matrix.bias is None else stored_parameter(module, matrix.bias)
            part = None if bias is None else matrix.bias_of(bias)
            self._add(matrix.layer, _linear(matrix.of(weight), part, weight, module.training))
        self.training = module.training
        return self

    def _add(self, path: str, layer: nn.Module) -> None:
        within, _, name = path.rpartition(".")
        if within and not isinstance(self._modules.get(within), LayerStack):
            self._modules[within] = LayerStack()
        self.get_submodule(within)._modules[name] = layer

    def layers(self) -> dict[str, nn.Module]:
        """The layers that replace matrices, by their names in this module."""
        return {matrix.layer: self.get_submodule(matrix.layer) for matrix in self.matrices}

    def is_same_as(self, module: nn.Module) -> bool:
        """Whether this computes the same as the original module."""
        return True

    def merge(self) -> Any:
        """The original module with the current weights of the layers, which must all be dense."""
        layers: dict[str, Any] = self.layers()
        cut = {path: self._assembled(path, shape, layers) for path, shape in self.shapes.items()}
        for layer in {matrix.layer.partition(".")[0] for matrix in self.matrices}:
            self._modules.pop(layer)
        for path, parameter in cut.items():
            within, _, name = path.rpartition(".")
            self.shell.get_submodule(within)._parameters[name] = parameter
        own = self.shell._parameters
        self.shell.__dict__["_parameters"] = {name: own[name] for name in dict.fromkeys((*self.order, *own))}
        own = {name: value for name, value in vars(self).items() if name[0] != "_" and name in vars(self.shell)}
        self.shell.__dict__.update(own)  # attributes that were set since the split
        return self.shell

    def _assembled(self, path: str, shape: tuple[int, ...], layers: dict[str, Any]) -> nn.Parameter:
        parts = [one for one in self.matrices if path in (one.parameter, one.bias)]
        is_weight = path == parts[0].parameter
        sources = [layers[one.layer].weight if is_weight else layers[one.layer].bias for one in parts]
        whole = torch.empty(shape, dtype=sources[0].dtype, device=sources[0].device)
        for one, source in zip(parts, sources, strict=True):
            (one.of(whole) if is_weight else one.bias_of(whole)).copy_(source.detach())
        return nn.Parameter(whole, requires_grad=any(source.requires_grad for source in sources))
