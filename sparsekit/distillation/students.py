"""`drop_layers`: make a student with some of the teacher's layers. In this file, a layer is a transformer block.

DistilBERT was initialized with every second layer of its teacher (Sanh et al., arXiv 1910.01108, section 2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparsekit.distillation.layer_map import LayerMap
from sparsekit.distillation.student_configs import Cut, adapt_configs
from sparsekit.introspect.transformer_blocks import find_stacks, lists_beside
from sparsekit.surgery import Description, Trial, bypassed, failures

#: Attributes in which layers and attentions store their layer number; BigBird seeds its random attention with it.
_NUMBER = ("layer_idx", "layer_id", "layer_number", "seed")

#: Number of layers, or layer numbers.
Layers = int | Iterable[int]


def _check_places(model: nn.Module, cuts: Sequence[Cut]) -> None:
    """Refuse a student whose layer has other parameters than the teacher's layer in that place."""
    for cut in cuts:
        for place, number in enumerate(cut.kept):
            layers = [model.get_submodule(f"{cut.name}.{one}") for one in (place, number)]
            other = layers[0].state_dict().keys() ^ layers[1].state_dict().keys()
            if other:
                raise ValueError(
                    f"layer {number} cannot take the place of layer {place}: they differ in "
                    f"{', '.join(sorted(other))}; keep layer {place} by naming the layers: layers=[..., {place}, ...]"
                )


def _kept_numbers(layers: Layers, count: int) -> list[int]:
    """Numbers of the layers to keep, out of `count`."""
    if isinstance(layers, int):
        return [teacher for _, teacher in LayerMap.even(layers, count).pairs]
    kept = list(layers)
    if not kept or kept != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < count:
        raise ValueError(f"layers must be ascending numbers of the teacher's layers 0 to {count - 1}, got {kept}")
    return kept


def _wanted(layers: Layers | Mapping[str, Layers], stacks: Mapping[str, str]) -> dict[str, Layers]:
    """Number of layers, or layer numbers, by stack."""
    if not isinstance(layers, Mapping):
        return dict.fromkeys(stacks, layers if isinstance(layers, int) else list(layers))
    if not layers or not set(layers) <= set(stacks) or "" in stacks:
        has = "one stack of layers" if "" in stacks else f"the stacks {', '.join(stacks)}"
        raise ValueError(f"layers names the stacks {list(layers)}; the model has {has}")
    return dict(layers)


def _plans(model: nn.Module, layers: Layers | Mapping[str, Layers]) -> list[list[Cut]]:
    """Candidate choices of layers: as requested, then, if only a number was given, with the first layer included.

    The first layer is special in some models: T5's has the position biases of all layers, ModernBERT's lacks a norm.
    """
    stacks = find_stacks(model)
    even, special = [], []
    for part, given in _wanted(layers, stacks).items():
        count = len(model.get_submodule(stacks[part]))  # type: ignore[arg-type]
        kept = _kept_numbers(given, count)
        even.append(Cut(stacks[part], part, kept, count))
        special.append(Cut(stacks[part], part, [0, *kept[1:]] if isinstance(given, int) else kept, count))
    return [even] if even == special else [even, special]


def _going(model: nn.Module, cuts: Sequence[Cut]) -> list[nn.Module]:
    """Layers to drop."""
    return [
        model.get_submodule(f"{name}.{number}")
        for cut in cuts
        for name in lists_beside(model, cut.name)
        for number in range(cut.count)
        if number not in cut.kept
    ]


def _copy_without(model: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """Deep copy with empty modules in place of dropped layers, whose weights are never copied."""
    staying = {id(part) for layer in _staying(model, cuts) for part in layer.modules()}
    going = [layer for layer in _going(model, cuts) if id(layer) not in staying]
    return copy.deepcopy(model, {id(layer): nn.Identity() for layer in going})


def _staying(model: nn.Module, cuts: Sequence[Cut]) -> list[nn.Module]:
    return [model.get_submodule(f"{cut.name}.{number}") for cut in cuts for number in cut.kept]


def _keep_layers(layers: nn.ModuleList, kept: Sequence[int]) -> None:
    """Remove dropped layers from the list, and renumber the others (attentions index the cache by it)."""
    for number in reversed(range(len(layers))):
        if number not in kept:
            del layers[number]
    for place, number in enumerate(kept):
        for module in layers[place].modules():
            for key in _NUMBER:
                if vars(module).get(key) == number and not isinstance(vars(module)[key], bool):
                    setattr(module, key, place)


def _expected(model: nn.Module, trial: Trial, cuts: Sequence[Cut]) -> list[torch.Tensor] | None:
    """Outputs of the teacher with the dropped layers skipped; None if they cannot be skipped."""
    if any(len(lists_beside(model, cut.name)) > 1 for cut in cuts):
        return None
    try:
        with bypassed(_going(model, cuts)) as ran:
            outputs = trial.outputs(model)
    except failures():
        return None
    return outputs if len(ran) == len(set(_going(model, cuts))) else None


def _adapt(student: nn.Module, cut: Cut) -> None:
    try:
        adapt_configs(student, cut)
    except failures() as error:
        raise ValueError(
            f"the config of {type(student).__name__} cannot be set to {len(cut.kept)} layers: "
            f"{' '.join(str(error).split())[:300]}; nothing was changed"
        ) from error


def _student(model: nn.Module, cuts: Sequence[Cut], trial: Trial, description: Description) -> nn.Module:
    """Build and check the student with the given layers.

    Raises:
        ValueError: it could not be rebuilt from its config, or its outputs are wrong.
    """
    expected = _expected(model, trial, cuts) if trial.runs else None
    student = _copy_without(model, cuts)
    for cut in cuts:
        for name in lists_beside(model, cut.name):
            _keep_layers(student.get_submodule(name), cut.kept)  # type: ignore[arg-type]
        _adapt(student, cut)
    fault = description.fault(student)
    if fault is not None or not description.known:
        _check_places(model, cuts)
    if fault is not None:
        raise ValueError(f"{fault}; nothing was changed")
    trial.check(student, expected, f"with {' and '.join(str(len(cut.kept)) for cut in cuts)} layers")
    return student


def _first_student(model: nn.Module, plans: Sequence[Sequence[Cut]], batches: Sequence[Any]) -> nn.Module:
    trial, description = Trial(model, batches), Description(model)
    faults = []
    for cuts in plans:
        try:
            return _student(model, cuts, trial, description)
        except ValueError as error:
            faults.append(error)
    raise faults[-1]


def drop_layers(model: nn.Module, layers: Layers | Mapping[str, Layers], batches: Sequence[Any] = ()) -> nn.Module:
    """Make a student with fewer layers (transformer blocks) from a teacher, which is not changed.

    The student is a deep copy with the teacher's weights. Its config and layer numbers are adapted, so that it
    generates, saves and loads like any model of its class. It is run on a tiny input before it is returned, and its
    outputs must equal the teacher's with the dropped layers skipped.

    Args:
        model: a model whose transformer blocks are an `nn.ModuleList`, at any depth, see
            `sparsekit.introspect.transformer_blocks`; two lists in an encoder-decoder.
        layers: number of layers to keep, chosen as in `LayerMap.even`, with the first layer in place of the first
            chosen one if the model needs it; or layer numbers, ascending, from 0. For an encoder-decoder it applies to
            both stacks, unless it is a mapping such as `{"decoder": 2}`, which keeps the other stack whole.
        batches: keyword arguments of the model's forward; the first is the tiny input. Needed only if none can be
            generated for the model.

    Returns:
        The student, in the teacher's mode. If all of the teacher is frozen, the student is trainable; parts that alone
        are frozen stay frozen.

    Raises:
        ValueError: there are no transformer blocks, `layers` does not fit their number, a layer would take the place of
            one with a different structure, or the student cannot run or be rebuilt from its config (DINOv2's config
            names layers whose outputs are read).

    >>> teacher = nn.Sequential(nn.ModuleList(nn.Linear(2, 2) for _ in range(6)))
    >>> len(drop_layers(teacher, 3)[0])
    3
    """
    student = _first_student(model, _plans(model, layers), batches)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        student.requires_grad_(True)
    return student
