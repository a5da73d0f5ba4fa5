"""Work on a model whose modules are split into linear layers, so that every method reaches all of their matrices."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import nn

from sparsekit.pruning.masks.parametrization import apply_mask, mask_of, remove_mask
from sparsekit.splitting import SplitAttention, SplitModule, pad_plain_encoders, reads, split
from sparsekit.splitting.split_module import stored_parameter

P = ParamSpec("P")
Result = TypeVar("Result")


def replace_modules(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put other modules in all places of the model that hold the ones given."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in new:
                parent._modules[name] = new[child]


def _split_all(model: nn.Module) -> dict[SplitModule, nn.Module]:
    """Split what can be split; each new module -> the one whose place it took."""
    made = {}
    parents: dict[nn.Module, set[type[nn.Module]]] = {}
    for parent in model.modules():
        for child in parent.children():
            parents.setdefault(child, set()).add(type(parent))
    classes = {type(parent) for parent in model.modules()}
    holders = Counter(id(one) for module in model.modules() for one in module._parameters.values())
    for module in [one for one in parents if not isinstance(one, SplitModule)]:
        new = split(module)
        if new is None or any(holders[id(stored_parameter(module, path))] > 1 for path in new.shapes):
            continue  # layers would not share what modules share
        if any(reads(parent, path) for parent in parents[module] for path in new.shapes):
            continue
        # No other module has parameters of these names: whoever speaks of them means this kind.
        if isinstance(new, SplitAttention) and any(
            reads(other, path, through_variables=True) for other in classes - {type(module)} for path in new.shapes
        ):
            continue
        _mask_layers(new, module)
        made[new] = module
    replace_modules(model, {old: new for new, old in made.items()})
    return made


def _mask_layers(new: SplitModule, old: nn.Module) -> None:
    """Give the layers the masks that the parameters have which they were cut from."""
    for matrix in new.matrices:
        owner, name = _owner(old, matrix.parameter)
        mask = mask_of(owner, name)
        if mask is not None:
            apply_mask(new.get_submodule(matrix.layer), matrix.of(mask))


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    within, _, name = path.rpartition(".")
    return module.get_submodule(within), name


@torch.no_grad()
def _take_over(old: nn.Module, new: SplitModule) -> None:
    """Give a module the weights and masks that the layers have which it was split into; parameters stay the same."""
    masks: dict[str, torch.Tensor] = {}
    for matrix in new.matrices:
        layer: Any = new.get_submodule(matrix.layer)
        parameter = stored_parameter(old, matrix.parameter)
        part, weight = matrix.of(parameter.data), stored_parameter(layer, "weight")
        if part.data_ptr() != weight.data_ptr() and not part.is_meta:
            part.copy_(weight)
        mask = mask_of(layer)
        if mask is not None:
            whole = masks.setdefault(matrix.parameter, torch.ones_like(parameter, dtype=torch.bool))
            matrix.of(whole).copy_(mask)
    for path in new.shapes:
        owner, name = _owner(old, path)
        if path in masks:
            apply_mask(owner, masks[path], name=name)
        elif mask_of(owner, name) is not None:
            remove_mask(owner, name)


def _own_memory(new: SplitModule) -> None:
    """Let layers keep nothing of the parameters that they were cut from."""
    for parameter in new.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


@contextmanager
def split_modules(model: nn.Module) -> Iterator[None]:
    """Have a linear layer for every matrix of the model for a while; see `sparsekit.splitting`.

    In the end those modules stay split of which a layer is no `nn.Linear` any more. The others are back, the same
    objects with the same parameters, and have the weights and masks that their layers were given.
    """
    made = _split_all(model)
    padded = pad_plain_encoders(model, SplitModule)
    try:
        yield
    finally:
        dense = {new for new in made if all(isinstance(layer, nn.Linear) for layer in new.layers().values())}
        for new in dense:
            _take_over(made[new], new)
        replace_modules(model, {new: made[new] for new in dense})
        for new in made.keys() - dense:
            _own_memory(new)
        for encoder in padded:
            if not any(isinstance(module, SplitModule) for module in encoder.modules()):
                encoder.__class__ = nn.TransformerEncoder


def on_split_modules(
    function: Callable[Concatenate[nn.Module, P], Result],
) -> Callable[Concatenate[nn.Module, P], Result]:
    """Have a function find a linear layer for every matrix of the model that is its first argument."""

    @functools.wraps(function)
    def run(model: nn.Module, *args: P.args, **kwargs: P.kwargs) -> Result:
        with split_modules(model):
            return function(model, *args, **kwargs)

    return cast(Callable[Concatenate[nn.Module, P], Result], run)
