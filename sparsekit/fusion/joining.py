"""`join_layers`: compute sparse layers that read the same input, such as query, key and value, in one call."""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sparsekit import ops, runtime
from sparsekit.fusion.fused_linear import FusedLinear
from sparsekit.introspect.hooks import attached
from sparsekit.introspect.model_code import original_class
from sparsekit.introspect.shared_inputs import shared_inputs
from sparsekit.nn import SparseLinear
from sparsekit.ops.addresses import packed_address, plain_address


def _version(input: torch.Tensor) -> int | None:
    """A tensor's version, which changes when it is written to; None for inference tensors, which do not track it."""
    return None if input.is_inference() else input._version


class _Computed:
    """Outputs for an input that layers have not fetched yet; freed together with the input."""

    def __init__(self, input: torch.Tensor, outputs: dict[SparseLinear, torch.Tensor]) -> None:
        self.outputs = outputs
        self.version = _version(input)
        self.input = weakref.ref(input, lambda _: outputs.clear())

    def take(self, layer: SparseLinear, input: torch.Tensor) -> torch.Tensor | None:
        if self.input() is not input or self.version != _version(input):
            return None
        return self.outputs.pop(layer, None)


class _OfThread(threading.local):
    """Outputs that a thread has computed ahead, for one group at a time."""

    computed: _Computed | None = None


_of_thread = _OfThread()


def joined_forward(layer: SparseLinear, layers: tuple[SparseLinear, ...], input: torch.Tensor) -> torch.Tensor:
    """Output of `layer`, computed together with all `layers` or fetched from an earlier joint computation.

    The first layer computes the outputs of all, packing the input once; the others fetch theirs when they are called
    with the same, unmodified tensor. Otherwise a layer computes its output alone.
    """
    if not ops.is_plain(input):
        return SparseLinear.forward(layer, input)
    computed = _of_thread.computed
    found = None if computed is None else computed.take(layer, input)
    if found is not None:
        return found
    outputs = _outputs(layers, input) if layer is layers[0] else None
    if outputs is None:
        return SparseLinear.forward(layer, input)
    found = outputs.pop(layer)
    _of_thread.computed = _Computed(input, outputs)
    return found


def entry_of(layer: SparseLinear) -> str:
    """Name of the method to join: for a fused layer, the one that applies its activation function."""
    return "activated" if type(layer) is FusedLinear else "forward"


def joined_with(layer: nn.Module) -> tuple[SparseLinear, ...]:
    """The layers that this one is joined with, in call order; empty for a separate layer."""
    forward = vars(layer).get(entry_of(layer)) if isinstance(layer, SparseLinear) else None
    is_joined = isinstance(forward, functools.partial) and forward.func is joined_forward
    layers: tuple[SparseLinear, ...] = forward.args[1] if is_joined else ()  # type: ignore[union-attr]
    return layers


def _outputs(layers: tuple[SparseLinear, ...], input: torch.Tensor) -> dict[SparseLinear, torch.Tensor] | None:
    """Outputs of all layers; None if the kernels cannot use the tensors as they are, which `SparseLinear` handles."""
    *leading, features = input.shape if input.dim() else (0,)
    address = plain_address(input, torch.float32)
    if not address or features != layers[0].in_features:
        return None
    outputs, parts = {}, []
    for layer in layers:
        packed: Any = layer._buffers["packed"]  # 2 microseconds per group faster than attribute access
        bias = layer._parameters.get("bias")
        bias_address = 0 if bias is None else plain_address(bias, torch.float32)
        if bias is not None and not bias_address:
            return None
        output = torch.empty(*leading, layer.out_features, dtype=torch.float32, device="cpu")
        code = runtime.activation_code(layer.activation)
        place = packed_address(packed)
        parts.append((place, packed.numel(), output.data_ptr(), layer.out_features, bias_address, code))
        outputs[layer] = output
    runtime.joined_linear_at(address, features, features, math.prod(leading), parts)
    return outputs


def _fits(layer: SparseLinear) -> bool:
    """Whether a layer can be joined: its methods are not replaced, and it is not joined yet."""
    is_own = vars(layer).keys().isdisjoint(("forward", "activated"))
    return is_own and type(layer) in (SparseLinear, FusedLinear) and layer.in_features > 0


def _only_reads(module: nn.Module | None) -> bool:
    """Whether a module returns a new tensor and does not modify its input."""
    return isinstance(module, nn.Linear | SparseLinear) and (joined_with(module) != () or not attached(module))


def _groups(parent: nn.Module) -> Iterator[list[SparseLinear]]:
    """Groups of a module's layers that its code calls with the same input, with the same dtype and block."""
    children = parent._modules
    linear = frozenset(name for name, child in children.items() if _only_reads(child))
    for names in shared_inputs(original_class(parent), linear):  # type: ignore[arg-type]  # mypy knows no hash of it
        alike: dict[tuple[int, str, str], list[SparseLinear]] = defaultdict(list)
        for layer in (children[name] for name in names):
            if isinstance(layer, SparseLinear) and _fits(layer):
                alike[layer.in_features, layer.dtype, layer.block].append(layer)
        yield from alike.values()


def join_layers(model: nn.Module) -> int:
    """Join sparse layers that read the same input, in place. Returns the number of groups.

    They are found in the model's code: query, key and value, or gate and up, called one after the other with the same
    variable, which is not modified in between. The layers stay in the model, with their own weights.
    """
    groups = 0
    for parent in list(model.modules()):
        for found in _groups(parent):
            layers = tuple(dict.fromkeys(found))
            if len(layers) < 2:
                continue
            for layer in layers:
                setattr(layer, entry_of(layer), functools.partial(joined_forward, layer, layers))
            groups += 1
    return groups


def separate_layers(model: nn.Module) -> None:
    """Undo `join_layers`, in place."""
    for layer in model.modules():
        if isinstance(layer, SparseLinear) and joined_with(layer):
            delattr(layer, entry_of(layer))
