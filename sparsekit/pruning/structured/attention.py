"""Find attention heads: the query, key and value layers, and the output projection that consumes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from sparsekit.introspect.dense_classes import is_conv1d
from sparsekit.introspect.module_paths import find_module, full_name
from sparsekit.pruning.structured.attention_patterns import PATTERNS, REFUSED, Pattern
from sparsekit.pruning.structured.narrowing import keep_columns, keep_elements, shape_of
from sparsekit.pruning.structured.position_bias import tables_of
from sparsekit.pruning.structured.units import Producer, Units

#: Attributes in which attention modules store the head size, the number of heads, and heads times head size.
_HEAD_SIZE = ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size")
_HEADS = ("num_attention_heads", "num_heads", "n_heads")
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
_ALL_HEADS = ("all_head_size", "split_size", "inner_dim", "embed_dim")
#: Parameters with one value for every query head.
_BY_HEAD = ("sinks",)


@dataclass(frozen=True)
class Attention:
    """An attention module and the layers that make up its heads."""

    name: str  # of the module that holds all its layers
    owner: str  # name of the module whose forward splits their outputs into heads
    inputs: tuple[str, ...]
    output: str
    head_size: int
    by_head: bool = False
    by_config: bool = False
    more: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()  # names in the model
    by_query: tuple[str, ...] = ()  # parameters with one value for every query head
    beside: tuple[str, ...] = ()  # names of modules inside it that come after its output
    tables: tuple[str, ...] = ()  # embeddings of position biases, one column per head, shared with other attentions

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers."""
        return (*self.inputs, *self.more, self.output)


def _attention(name: str, module: nn.Module, pattern: Pattern) -> Attention | None:
    layers = [find_module(module, layer) for layer in (*pattern.inputs, pattern.output)]
    present = [layer for layer in layers if layer is not None]
    if len(present) < len(layers):
        return None
    within = pattern.inputs[0].rpartition(".")[0]
    owner = module.get_submodule(within)
    sizes = [getattr(owner, attribute, None) for attribute in _HEAD_SIZE]
    size = next((size for size in sizes if isinstance(size, int) and size > 0), None)
    if size is None:
        return None
    by_head = pattern.by_head or (pattern.inputs == ("c_attn",) and not is_conv1d(present[0]))
    place = full_name(name, within)
    own = owner._parameters
    return Attention(
        name,
        place,
        tuple(full_name(name, layer) for layer in pattern.inputs),
        full_name(name, pattern.output),
        size,
        by_head,
        pattern.by_config,
        tuple(full_name(name, layer) for layer in pattern.more if find_module(module, layer) is not None),
        tuple(full_name(place, key) for key in pattern.vectors if own.get(key) is not None),
        tuple(full_name(place, key) for key in _BY_HEAD if own.get(key) is not None),
        tuple(full_name(name, key) for key in pattern.beside),
    )


def find_attentions(model: nn.Module) -> list[Attention]:
    """All attentions that match one of `PATTERNS`, in model order; their layers are not checked yet."""
    found = []
    for name, module in model.named_modules():
        attentions = (_attention(name, module, pattern) for pattern in PATTERNS)
        found.extend([attention for attention in attentions if attention is not None][:1])
    tables = tables_of(model, [attention.owner for attention in found])
    return [replace(attention, tables=tables.get(attention.owner, ())) for attention in found]


def head_counts(model: nn.Module, attention: Attention) -> tuple[int, int]:
    """Current numbers of query heads and of key/value heads in an attention's layers."""
    heads = shape_of(model.get_submodule(attention.output))[1] // attention.head_size
    if len(attention.inputs) == 1:
        outputs = shape_of(model.get_submodule(attention.inputs[0]))[0]
        return heads, (outputs // attention.head_size - heads) // 2
    return heads, shape_of(model.get_submodule(attention.inputs[1]))[0] // attention.head_size


def check_attention(model: nn.Module, attention: Attention) -> None:
    """Refuse attentions from which heads cannot be removed safely.

    Raises:
        ValueError: the class needs all its heads, query heads do not share key/value heads evenly, or the module has
            parameters of its own whose shape is not [head_size], such as a norm over all heads.
    """
    kind = type(model.get_submodule(attention.owner)).__name__
    if kind in REFUSED:
        raise ValueError(
            f"{attention.name} is a {kind}, from which no heads can be removed: {REFUSED[kind]}; put it into ignore"
        )
    heads, shared = head_counts(model, attention)
    if shared < 1 or heads % shared:
        raise ValueError(f"{attention.name}: {heads} query heads cannot share {shared} key and value heads evenly")
    known = {*attention.vectors, *attention.by_query, *(f"{table}.weight" for table in attention.tables)}
    for key, parameter in model.get_submodule(attention.owner).named_parameters():
        name = full_name(attention.owner, key)
        layer = name.rpartition(".")[0]
        if (
            layer not in (*attention.layers, *attention.beside)
            and name not in known
            and tuple(parameter.shape) != (attention.head_size,)
        ):
            raise ValueError(
                f"{attention.name} has the parameter {key} of shape {list(parameter.shape)} beside its linear layers, "
                "which may have values for every head; put the attention into ignore"
            )


def units_of(model: nn.Module, attention: Attention) -> Units:
    """The removable units of an attention and the features they occupy in its layers.

    A unit is a key/value head with all query heads that share it; with a single key/value head (multi-query), a unit
    is one query head.
    """
    heads, shared = head_counts(model, attention)
    size, alone = attention.head_size, shared == 1 and heads > 1
    group = size if alone else size * (heads // shared)
    if len(attention.inputs) > 1:
        query, *others = attention.inputs
        makers = [Producer(query, (group,))]
        makers += [] if alone else [Producer(other, (size,)) for other in others]
    elif alone:
        makers = [Producer(attention.inputs[0], (size,), shared=2 * size)]
    else:
        makers = [Producer(attention.inputs[0], (group + 2 * size,) if attention.by_head else (group, size, size))]
    makers += [Producer(layer, (size,)) for layer in attention.more]
    return Units(attention.name, tuple(makers), attention.output, group, heads if alone else shared)


def _parameters_of_heads(attention: Attention) -> Iterator[tuple[str, int]]:
    """Per-head parameters outside the layers, with the number of values per query head."""
    yield from ((name, attention.head_size) for name in attention.vectors)
    yield from ((name, 1) for name in attention.by_query)


def keep_parameters(model: nn.Module, attention: Attention, kept: torch.Tensor) -> None:
    """Narrow the per-head parameters of an attention that are not part of its layers.

    Args:
        model: the model.
        attention: the attention; its layers are narrowed elsewhere.
        kept: indices of the query heads to keep, int64.
    """
    for name, size in _parameters_of_heads(attention):
        place, _, key = name.rpartition(".")
        keep_elements(model.get_submodule(place), key, (kept[:, None] * size + torch.arange(size)).flatten())


def fit_attributes(model: nn.Module, attention: Attention) -> None:
    """Update the attributes that the attention's forward reads to match its layers, and narrow per-head parameters.

    The head size stays, and so does the number of query heads per key/value head, unless all query heads share one.
    """
    owner: Any = model.get_submodule(attention.owner)
    heads, shared = head_counts(model, attention)
    width = heads * attention.head_size
    for names, value in ((_HEADS, heads), (_KEY_VALUE_HEADS, shared), (_ALL_HEADS, width)):
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, value)
    if hasattr(owner, "attention_head_size") and isinstance(getattr(owner, "head_size", None), int):
        owner.head_size = width  # LXMERT's name for it
    if shared == 1 and hasattr(owner, "num_key_value_groups"):
        owner.num_key_value_groups = heads
    for name, size in _parameters_of_heads(attention):
        if model.get_parameter(name).numel() > heads * size:
            keep_parameters(model, attention, torch.arange(heads))
    for table in attention.tables:
        if model.get_submodule(table).embedding_dim > heads:  # type: ignore[operator]
            keep_columns(model.get_submodule(table), torch.arange(heads))
