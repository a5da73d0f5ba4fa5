"""Find the neurons of MLPs: the layers that produce them (up, gate) and the one that consumes them (down)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from sparsekit.introspect.module_paths import find_module, full_name
from sparsekit.pruning.structured.narrowing import is_dense, shape_of
from sparsekit.pruning.structured.units import Producer, Units


@dataclass(frozen=True)
class NeuronGroup:
    """Layers around the hidden units of one MLP.

    Args:
        producers: names of the layers that compute the units: one, or the gate and up projections.
        consumer: name of the only layer that reads the units.
        fused: number of projections concatenated in each producer; 2 for a fused gate and up projection.
    """

    producers: Sequence[str]
    consumer: str
    fused: int = 1

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers."""
        return (*self.producers, self.consumer)


#: MLPs in transformers models, by the names of their layers inside the module that holds them.
PATTERNS = (
    NeuronGroup(("intermediate.dense",), "output.dense"),  # BERT, RoBERTa, ELECTRA, DeBERTa, MPNet
    NeuronGroup(("gate_proj", "up_proj"), "down_proj"),  # Llama, Mistral, Qwen, Gemma
    NeuronGroup(("gate_up_proj",), "down_proj", fused=2),  # Phi-3, GLM
    NeuronGroup(("up_proj",), "down_proj"),  # MPT, Nemotron
    NeuronGroup(("Wi",), "Wo", fused=2),  # ModernBERT
    NeuronGroup(("c_fc",), "c_proj"),  # GPT-2, GPT-Neo, StarCoder2
    NeuronGroup(("lin1",), "lin2"),  # DistilBERT
    NeuronGroup(("fc1",), "fc2"),  # OPT, BART, Whisper, Phi, CLIP, ViT
    NeuronGroup(("fc_in",), "fc_out"),  # GPT-J, CodeGen
    NeuronGroup(("dense_h_to_4h",), "dense_4h_to_h"),  # GPT-NeoX, BLOOM, Falcon
    NeuronGroup(("wi_0", "wi_1"), "wo"),  # T5 1.1
    NeuronGroup(("wi",), "wo"),  # T5
    NeuronGroup(("ffn",), "ffn_output"),  # ALBERT
    NeuronGroup(("w1", "w3"), "w2"),  # LFM2
    NeuronGroup(("linear_1",), "linear_2"),  # Funnel
    NeuronGroup(("layer_1",), "layer_2"),  # XLNet
    NeuronGroup(("intermediate_dense",), "output_dense"),  # wav2vec2, HuBERT, WavLM
    NeuronGroup(("pwconv1",), "pwconv2"),  # ConvNeXt
)

#: Elementwise modules, which may stand between two layers of an nn.Sequential.
_ELEMENTWISE = (
    nn.Dropout,
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.Identity,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Tanh,
)


def _in_sequential(name: str, module: nn.Sequential) -> Iterator[NeuronGroup]:
    steps = [
        (full_name(name, key), step) for key, step in module.named_children() if not isinstance(step, _ELEMENTWISE)
    ]
    for (producer, first), (consumer, second) in pairwise(steps):
        if is_dense(first) and is_dense(second):
            yield NeuronGroup((producer,), consumer)


def _by_pattern(name: str, module: nn.Module) -> NeuronGroup | None:
    for pattern in PATTERNS:
        if all(find_module(module, layer) is not None for layer in pattern.layers):
            producers = [full_name(name, layer) for layer in pattern.producers]
            return NeuronGroup(producers, full_name(name, pattern.consumer), pattern.fused)
    return None


def _fits(model: nn.Module, group: NeuronGroup) -> bool:
    """Whether the layers' widths fit together; True when a layer is not dense and its width unknown."""
    layers = [model.get_submodule(layer) for layer in group.layers]
    if not all(is_dense(layer) for layer in layers):
        return True
    shapes = [shape_of(layer) for layer in layers]
    return all(outputs == group.fused * shapes[-1][1] for outputs, _ in shapes[:-1])


def find_groups(model: nn.Module) -> list[NeuronGroup]:
    """Groups of all MLPs that match one of `PATTERNS`, and of every `nn.Sequential(Linear, activation, Linear)`.

    Layers are recognized by name and width alone; whether they can be narrowed is checked later.
    """
    found: list[NeuronGroup] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            found.extend(_in_sequential(name, module))
        group = _by_pattern(name, module)
        if group is not None:
            found.append(group)
    return [group for group in found if _fits(model, group)]


def check_between(model: nn.Module, group: NeuronGroup) -> None:
    """Refuse a group if another module next to it may act on its units, such as a norm or a second gate.

    Raises:
        ValueError: a module next to the group's layers has parameters for each unit.
    """
    width, residual = _width(model, group), shape_of(model.get_submodule(group.consumer))[0]
    if width == residual:
        return  # modules of this width may act on the residual stream instead
    for parent in {layer.rpartition(".")[0] for layer in group.layers}:
        for key, beside in model.get_submodule(parent).named_children():
            name = full_name(parent, key)
            for parameter in beside.parameters(recurse=False):
                if name not in group.layers and parameter.dim() and parameter.shape[0] == width:
                    raise ValueError(
                        f"{name} has parameters for each of the {width} units that {group.consumer} reads, and would "
                        "no longer fit; put the layers into ignore, or give groups= if it does not touch the units"
                    )


def _width(model: nn.Module, group: NeuronGroup) -> int:
    return shape_of(model.get_submodule(group.consumer))[1]


def units_of(model: nn.Module, group: NeuronGroup) -> Units:
    """The hidden units of a group, named after the layer that consumes them."""
    producers = tuple(Producer(layer, (1,) * group.fused) for layer in group.producers)
    return Units(group.consumer, producers, group.consumer, 1, _width(model, group))
