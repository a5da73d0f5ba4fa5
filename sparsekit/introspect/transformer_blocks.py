"""Find the transformer blocks of a model: one stack, or an encoder's and a decoder's."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from sparsekit.introspect.dense_classes import is_dense_linear
from sparsekit.introspect.model_configs import configs_around
from sparsekit.introspect.module_paths import full_name, lies_within

_STACKS = ("encoder", "decoder")


def outer_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Every nonempty `nn.ModuleList` that is not nested in another, by name in model order.

    Nested lists are parts of a transformer block, such as the experts of a mixture.
    """
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        is_list = isinstance(module, nn.ModuleList) and not isinstance(module, ParametrizationList)
        if is_list and len(module) and not any(lies_within(outer, name) for outer in found):
            found[name] = module
    return found


def _has_two_stacks(model: nn.Module, name: str) -> bool:
    return any(getattr(config, "is_encoder_decoder", False) for config, _ in configs_around(model, name))


def _is_counted(model: nn.Module, name: str, count: int) -> bool:
    """Whether a config around the list states this number of transformer blocks."""
    return any(getattr(config, "num_hidden_layers", None) == count for config, _ in configs_around(model, name))


def _part_of(name: str) -> str:
    """The stack that a list belongs to, by its name."""
    return next((part for part in name.split(".") if part in _STACKS), "")


def _candidates(model: nn.Module, layers: Iterable[str] | None) -> dict[str, nn.ModuleList]:
    """Lists that may be a stack: those that contain one of the layers, or any linear layer."""
    lists = outer_lists(model)
    if layers is None:
        holding = {name: one for name, one in lists.items() if any(map(is_dense_linear, one.modules()))}
        return holding or lists
    names = list(layers)
    return {name: one for name, one in lists.items() if any(lies_within(name, layer) for layer in names)}


def find_stacks(model: nn.Module, layers: Iterable[str] | None = None) -> dict[str, str]:
    """Names of the lists of transformer blocks.

    A list whose length is the `num_hidden_layers` of a config around it is preferred, else the longest one. Nested
    lists and lists without linear layers are skipped.

    Args:
        model: any PyTorch model.
        layers: layer names; a stack must contain at least one of them. None: any linear layer.

    Returns:
        The single stack under "", or the stacks of an encoder-decoder model under "encoder" and "decoder".

    Raises:
        ValueError: there is no stack.

    >>> find_stacks(nn.Sequential(nn.ModuleList(nn.Linear(2, 2) for _ in range(3))))
    {'': '0'}
    """
    lists = _candidates(model, layers)
    if not lists:
        raise ValueError(
            f"{type(model).__name__} has no nn.ModuleList of transformer blocks"
            + ("" if layers is None else " that holds one of the layers")
        )
    longest = max(lists, key=lambda name: (_is_counted(model, name, len(lists[name])), len(lists[name])))
    if not _has_two_stacks(model, longest):
        return {"": longest}
    own = {part: [name for name in lists if _part_of(name) == part] for part in _STACKS}
    found = {part: max(names, key=lambda name: len(lists[name])) for part, names in own.items() if names}
    if layers is None and len(found) < len(_STACKS):
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder, and its lists of transformer blocks are "
            f"{', '.join(lists)}; expected one with encoder and one with decoder in its name"
        )
    return found or {"": longest}


def transformer_blocks(model: nn.Module, layers: Iterable[str] | None = None) -> dict[str, nn.Module]:
    """The transformer blocks of a model's longest stack, by name, in the order they run.

    Args:
        model: any PyTorch model.
        layers: as in `find_stacks`.

    Raises:
        ValueError: as `find_stacks`.

    >>> list(transformer_blocks(nn.Sequential(nn.ModuleList(nn.Linear(2, 2) for _ in range(3)))))
    ['0.0', '0.1', '0.2']
    """
    stacks = {name: model.get_submodule(name) for name in find_stacks(model, layers).values()}
    longest = max(stacks, key=lambda name: len(stacks[name]))  # type: ignore[arg-type]
    return {full_name(longest, key): block for key, block in stacks[longest].named_children()}


def linear_layers_outside(model: nn.Module) -> list[str]:
    """Names of the linear layers outside the transformer blocks, such as heads and poolers.

    Raises:
        ValueError: as `find_stacks`.

    >>> linear_layers_outside(nn.Sequential(nn.ModuleList(nn.Linear(2, 2) for _ in range(3)), nn.Linear(2, 2)))
    ['1']
    """
    inside = {id(module) for block in transformer_blocks(model).values() for module in block.modules()}
    return [name for name, module in model.named_modules() if is_dense_linear(module) and id(module) not in inside]


def lists_beside(model: nn.Module, name: str) -> list[str]:
    """A stack and its sibling lists of the same length: XLM has one list for each kind of layer."""
    around, _, own = name.rpartition(".")
    children = model.get_submodule(around).named_children()
    length = len(model.get_submodule(name))  # type: ignore[arg-type]
    others = [key for key, child in children if isinstance(child, nn.ModuleList) and len(child) == length]
    return [name, *(full_name(around, key) for key in others if key != own)]
