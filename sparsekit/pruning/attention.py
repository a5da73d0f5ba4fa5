"""Find the heads of attentions: which layers make query, key and value, which layer reads what the heads say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsekit.pruning.module_paths import find_module, full_name
from sparsekit.pruning.narrowing import shape_of
from sparsekit.pruning.units import Producer, Units
from sparsekit.selection import is_conv1d


@dataclass(frozen=True)
class _Pattern:
    """Names of an attention's layers inside the module that holds them."""

    inputs: tuple[str, ...]  # query, key, value; or one layer that holds them one after the other
    output: str


#: Attentions of the transformers families.
PATTERNS = (
    _Pattern(("self.query", "self.key", "self.value"), "output.dense"),  # BERT, RoBERTa, ELECTRA
    _Pattern(("q_proj", "k_proj", "v_proj"), "o_proj"),  # Llama, Mistral, Qwen, Gemma
    _Pattern(("q_proj", "k_proj", "v_proj"), "out_proj"),  # OPT, BART, Whisper, CLIP, GPT-Neo, GPT-J
    _Pattern(("q_proj", "k_proj", "v_proj"), "dense"),  # Phi
    _Pattern(("q_lin", "k_lin", "v_lin"), "out_lin"),  # DistilBERT
    _Pattern(("c_attn",), "c_proj"),  # GPT-2
)

#: Names under which attentions keep the size of a head, the numbers of heads, and heads times size.
_HEAD_SIZE = ("head_dim", "attention_head_size", "head_size")
_HEADS = ("num_attention_heads", "num_heads", "n_heads")
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
_ALL_HEADS = ("all_head_size", "split_size")


@dataclass(frozen=True)
class Attention:
    """An attention whose heads can be told apart."""

    name: str  # of the module that holds all its layers
    owner: str  # of the module whose forward splits them into heads
    inputs: tuple[str, ...]
    output: str
    head_size: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers."""
        return (*self.inputs, self.output)


def _attention(name: str, module: nn.Module, pattern: _Pattern) -> Attention | None:
    layers = [find_module(module, layer) for layer in (*pattern.inputs, pattern.output)]
    present = [layer for layer in layers if layer is not None]
    if len(present) < len(layers):
        return None
    if len(pattern.inputs) == 1 and not is_conv1d(present[0]):
        return None  # others that name a layer so (GPTBigCode) order its outputs in another way
    within = pattern.inputs[0].rpartition(".")[0]
    owner = module.get_submodule(within)
    sizes = [getattr(owner, attribute, None) for attribute in _HEAD_SIZE]
    size = next((size for size in sizes if isinstance(size, int)), None)
    if size is None:
        return None
    inputs = tuple(full_name(name, layer) for layer in pattern.inputs)
    return Attention(name, full_name(name, within), inputs, full_name(name, pattern.output), size)


def find_attentions(model: nn.Module) -> list[Attention]:
    """All attentions that `PATTERNS` knows, in model order; their layers are not looked at yet."""
    found = []
    for name, module in model.named_modules():
        attentions = (_attention(name, module, pattern) for pattern in PATTERNS)
        found.extend([attention for attention in attentions if attention is not None][:1])
    return found


def head_counts(model: nn.Module, attention: Attention) -> tuple[int, int]:
    """Numbers of query heads and of key and value heads that an attention's layers have now."""
    _, inputs = shape_of(model.get_submodule(attention.output))
    heads = inputs // attention.head_size
    if len(attention.inputs) == 1:
        return heads, heads
    return heads, shape_of(model.get_submodule(attention.inputs[1]))[0] // attention.head_size


def check_attention(model: nn.Module, attention: Attention) -> None:
    """Refuse attentions that do more with their heads than split the layers' outputs.

    Raises:
        ValueError: query heads do not share key and value heads evenly, or the module has parameters of its own that
            are not one for every feature of a head, such as norms over all heads, sinks or position biases.
    """
    heads, shared = head_counts(model, attention)
    if not shared or heads % shared:
        raise ValueError(f"{attention.name}: {heads} query heads cannot share {shared} key and value heads evenly")
    owner = model.get_submodule(attention.owner)
    for key, parameter in owner.named_parameters():
        layer = full_name(attention.owner, key).rpartition(".")[0]
        if layer not in attention.layers and tuple(parameter.shape) != (attention.head_size,):
            raise ValueError(
                f"{attention.name} has the parameter {key} of shape {list(parameter.shape)} beside its linear layers, "
                "which may hold something for every head; put the attention into ignore"
            )


def units_of(model: nn.Module, attention: Attention) -> Units:
    """Where an attention's removable units lie: key and value heads with all query heads that read them."""
    heads, shared = head_counts(model, attention)
    size, group = attention.head_size, attention.head_size * (heads // shared)
    if len(attention.inputs) == 1:
        producers: tuple[Producer, ...] = (Producer(attention.inputs[0], size, fused=3),)
    else:
        query, key, value = attention.inputs
        producers = (Producer(query, group), Producer(key, size), Producer(value, size))
    return Units(attention.name, producers, attention.output, group, shared)


def fit_attributes(model: nn.Module, attention: Attention) -> None:
    """Bring the numbers that the attention's forward reads in line with its layers' shapes.

    The size of a head and the number of query heads that share a key head stay what they were.
    """
    owner: Any = model.get_submodule(attention.owner)
    heads, shared = head_counts(model, attention)
    for names, value in ((_HEADS, heads), (_KEY_VALUE_HEADS, shared), (_ALL_HEADS, heads * attention.head_size)):
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, value)
