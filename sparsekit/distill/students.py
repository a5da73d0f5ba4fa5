"""Smaller students: a copy of the teacher with some of its blocks.

Taking every n-th of the teacher's layers is how DistilBERT began (Sanh et al., arXiv 1910.01108, section 2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from sparsekit.distill.layers import LayerMap

#: Entries of transformers configs that hold one value a block.
_PER_BLOCK = ("layer_types", "mlp_layer_types", "attention_layers", "no_rope_layers")
#: Where configs of models with removed neurons or heads keep the shapes of their layers, by name.
_SHAPES = "sparsekit_widths"


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The longest `nn.ModuleList` that is not inside another, and its name."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if not outer:
        raise ValueError(
            "the model has no nn.ModuleList of blocks; a student with fewer blocks cannot be cut out of it"
        )
    name = max(outer, key=lambda one: len(lists[one]))
    return name, lists[name]


def _kept_blocks(layers: int | Iterable[int], count: int) -> list[int]:
    if isinstance(layers, int):
        return [teacher for _, teacher in LayerMap.even(layers, count).pairs]
    kept = list(layers)
    if not kept or kept != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < count:
        raise ValueError(f"layers must be ascending numbers of the teacher's blocks 0 to {count - 1}, got {kept}")
    return kept


def _check_places(blocks: Sequence[nn.Module], kept: Sequence[int]) -> None:
    """Refuse a student whose config would build other blocks than it has."""
    for place, number in enumerate(kept):
        other = blocks[place].state_dict().keys() ^ blocks[number].state_dict().keys()
        if other:
            raise ValueError(
                f"block {number} cannot take the place of block {place}: they differ in {', '.join(sorted(other))}; "
                f"keep block {place} by naming the blocks: layers=[..., {place}, ...]"
            )


def _copy_without(model: nn.Module, blocks: Sequence[nn.Module], kept: Sequence[int]) -> nn.Module:
    """Deep copy in which the blocks that are not kept are empty modules: their weights are never copied."""
    staying = {id(blocks[number]) for number in kept}
    return copy.deepcopy(model, {id(block): nn.Identity() for block in blocks if id(block) not in staying})


def _configs_around(model: nn.Module, name: str) -> list[tuple[Any, str]]:
    """The transformers configs of the modules that hold the blocks, each with the blocks' name in the outermost one."""
    found: dict[int, tuple[Any, str]] = {}
    parts = name.split(".")
    for length in range(len(parts)):
        config = getattr(model.get_submodule(".".join(parts[:length])), "config", None)
        if hasattr(config, "to_dict"):
            found.setdefault(id(config), (config, ".".join(parts[length:])))
    return list(found.values())


def _renamed(shapes: dict[str, Any], name: str, kept: Sequence[int]) -> dict[str, Any]:
    """Shapes by layer name, with the blocks' new numbers and without those that went."""
    found = {key: shape for key, shape in shapes.items() if not key.startswith(f"{name}.")}
    for place, number in enumerate(kept):
        prefix = f"{name}.{number}."
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        found.update({f"{name}.{place}.{key}": shape for key, shape in inside.items()})
    return found


def _adapt_config(config: Any, name: str, kept: Sequence[int], count: int) -> None:
    if getattr(config, "num_hidden_layers", None) == count:
        config.num_hidden_layers = len(kept)
    for entry in _PER_BLOCK:
        values = getattr(config, entry, None)
        if isinstance(values, list | tuple) and len(values) == count:
            setattr(config, entry, type(values)(values[number] for number in kept))
    shapes = getattr(config, _SHAPES, None)
    if shapes:
        setattr(config, _SHAPES, _renamed(shapes, name, kept))


def _drop_blocks(blocks: nn.ModuleList, kept: Sequence[int]) -> None:
    """Leave the kept blocks in the list, and tell each (its attention, for its cache) its new number."""
    for number in reversed(range(len(blocks))):
        if number not in kept:
            del blocks[number]
    for place, number in enumerate(kept):
        for module in blocks[place].modules():
            if getattr(module, "layer_idx", None) == number:
                module.layer_idx = place  # type: ignore[assignment]


def shallower(model: nn.Module, layers: int | Iterable[int]) -> nn.Module:
    """Cut a student with fewer blocks out of a teacher; the teacher stays as it is.

    The student is a deep copy with the teacher's weights in the blocks that it keeps and in everything else. Its config
    and the blocks' own numbers are adapted, so that it generates, saves and loads like any model of its class.

    Args:
        model: a model whose blocks are an `nn.ModuleList`; the longest one counts, also deep inside, as where an
            encoder is part of a classifier.
        layers: how many blocks to keep: those that `LayerMap.even` maps to, so that the map fits; or their numbers,
            ascending, counted from 0.

    Returns:
        The student, in the teacher's mode. A teacher that is frozen whole gives a student that can be trained; what is
        frozen in part stays frozen.

    Raises:
        ValueError: there are no blocks, `layers` does not fit their number, the model is an encoder with a decoder, or
            a block would take the place of one that is built differently (T5's first, which holds position biases).

    >>> teacher = nn.Sequential(nn.ModuleList(nn.Linear(2, 2) for _ in range(6)))
    >>> len(shallower(teacher, 3)[0])
    3
    """
    name, found = _find_blocks(model)
    blocks = list(found)
    kept = _kept_blocks(layers, len(blocks))
    if any(getattr(config, "is_encoder_decoder", False) for config, _ in _configs_around(model, name)):
        raise ValueError("the model has blocks in an encoder and in a decoder; expected one of the two alone")
    _check_places(blocks, kept)
    student = _copy_without(model, blocks, kept)
    _drop_blocks(student.get_submodule(name), kept)  # type: ignore[arg-type]
    for config, inside in _configs_around(student, name):
        _adapt_config(config, inside, kept, len(blocks))
    if not any(parameter.requires_grad for parameter in student.parameters()):
        student.requires_grad_(True)
    return student
