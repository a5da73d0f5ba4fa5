"""Where a model keeps its blocks: one stack of them, or that of an encoder and that of a decoder."""

from __future__ import annotations

from torch import nn

from sparsekit.distillation.student_configs import has_two_stacks, is_counted

_STACKS = ("encoder", "decoder")


def _outer_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Every `nn.ModuleList` that is not inside another, by name."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    return {
        name: module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists) and len(module)
    }


def _part_of(name: str) -> str:
    """Which stack a list of blocks is of, by its name."""
    return next((part for part in name.split(".") if part in _STACKS), "")


def find_stacks(model: nn.Module) -> dict[str, str]:
    """Names of the lists of blocks: the longest list under "", or an encoder's and a decoder's."""
    lists = _outer_lists(model)
    if not lists:
        raise ValueError(
            "the model has no nn.ModuleList of blocks; a student with fewer blocks cannot be cut out of it"
        )
    longest = max(lists, key=lambda name: (is_counted(model, name, len(lists[name])), len(lists[name])))
    if not has_two_stacks(model, longest):
        return {"": longest}
    own = {part: [name for name in lists if _part_of(name) == part] for part in _STACKS}
    found = {part: max(names, key=lambda name: len(lists[name])) for part, names in own.items() if names}
    if len(found) < len(_STACKS):
        raise ValueError(
            f"{type(model).__name__} is an encoder with a decoder, and its lists of blocks are {', '.join(lists)}; "
            "expected one with encoder and one with decoder in its name"
        )
    return found


def lists_beside(model: nn.Module, name: str) -> list[str]:
    """The list of blocks with those beside it that are as long: XLM has one for each kind of layer."""
    around, _, own = name.rpartition(".")
    children = model.get_submodule(around).named_children()
    length = len(model.get_submodule(name))  # type: ignore[arg-type]
    prefix = f"{around}." if around else ""
    others = [key for key, child in children if isinstance(child, nn.ModuleList) and len(child) == length]
    return [name, *(prefix + key for key in others if key != own)]
