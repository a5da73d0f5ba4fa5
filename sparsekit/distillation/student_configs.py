"""Adapt the configs of students with fewer layers: every entry that counts layers or has a value for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsekit.introspect.model_configs import RECORDED_SHAPES, configs_around, recorded_shapes

#: Entries for the number of layers in models with one stack, and of each stack in encoder-decoders.
_COUNTS = {
    "": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "encoder": ("encoder_layers", "num_encoder_layers", "encoder_num_hidden_layers", "num_hidden_layers", "num_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers", "decoder_num_hidden_layers"),
}
#: Entries with one value for each layer.
_PER_LAYER = (
    "layer_types",
    "mlp_layer_types",
    "attention_layers",
    "no_rope_layers",
    "attn_layers",
    "attention_window",
    "layers_block_type",
    "hybrid_override_pattern",
)
#: Entries with layer numbers.
_NUMBERS = ("attn_layer_indices", "hybrid_layer_ids", "mlp_only_layers")


@dataclass(frozen=True)
class Cut:
    """Layers of a stack that are kept."""

    name: str  # name of the list of layers
    part: str  # "encoder" or "decoder" in a model with both, else ""
    kept: Sequence[int]
    count: int  # number of layers before


def _set(owner: Any, name: str, value: Any) -> None:
    """Set an entry, unless it is derived from others."""
    name = getattr(type(owner), "attribute_map", {}).get(name, name)
    kind = getattr(type(owner), name, None)
    if isinstance(kind, property) and kind.fset is None:
        return
    try:
        setattr(owner, name, value)
    except NotImplementedError:  # ProphetNet's error for a derived entry
        return


def _set_counts(owner: Any, names: Sequence[str], cut: Cut) -> None:
    """Set the attributes of an object that hold the old number of layers."""
    for name in names:
        if getattr(owner, name, None) == cut.count:
            _set(owner, name, len(cut.kept))


def _renamed(shapes: dict[str, Any], name: str, kept: Sequence[int]) -> dict[str, Any]:
    """Shapes by module name, with new layer numbers and without dropped layers."""
    found = {key: shape for key, shape in shapes.items() if not key.startswith(f"{name}.")}
    for place, number in enumerate(kept):
        prefix = f"{name}.{number}."
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        found.update({f"{name}.{place}.{key}": shape for key, shape in inside.items()})
    return found


def _adapt(config: Any, inside: str, part: str, cut: Cut) -> None:
    old: dict[str, Any] = {entry: getattr(config, entry, None) for entry in (*_PER_LAYER, *_NUMBERS)}
    parts = {part, *(_COUNTS.keys() & inside.split(".")[:-1])} if not part else {part}
    _set_counts(config, [name for one in parts for name in _COUNTS[one]], cut)
    for entry in _PER_LAYER:
        values = old[entry]
        if part != "decoder" and isinstance(values, list | tuple | str) and len(values) == cut.count:
            kept = [values[number] for number in cut.kept]
            _set(config, entry, "".join(kept) if isinstance(values, str) else type(values)(kept))
    if getattr(config, "attention_types", None) and old["attention_layers"]:
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]  # GPT-Neo derives the other from it
    for entry in _NUMBERS:
        if old[entry]:
            _set(config, entry, [place for place, number in enumerate(cut.kept) if number in old[entry]])
    shapes = recorded_shapes(config)
    if shapes:
        setattr(config, RECORDED_SHAPES, _renamed(shapes, inside, cut.kept))


def adapt_configs(model: nn.Module, cut: Cut) -> None:
    """Update the configs around a list of layers, and attributes that modules copied from them.

    Args:
        model: the student, whose layers are already dropped.
        cut: the kept layers.
    """
    for config, inside in configs_around(model, cut.name):
        shared = cut.part in inside.split(".") or not cut.part  # else it is a stack's own config, as T5's copies are
        _adapt(config, inside, cut.part if shared else "", cut)
    around = model.get_submodule(cut.name.rpartition(".")[0])
    counts = {name for names in _COUNTS.values() for name in names}
    for module in around.modules():
        _set_counts(module, [name for name in counts if isinstance(vars(module).get(name), int)], cut)
        for entry in _PER_LAYER:
            values = vars(module).get(entry)
            if isinstance(values, list | tuple) and len(values) == cut.count:
                setattr(module, entry, type(values)(values[number] for number in cut.kept))
