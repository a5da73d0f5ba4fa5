"""Swap dense linear layers for sparse ones in place, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from sparsekit import runtime
from sparsekit.nn import SparseLinear
from sparsekit.pruning.parametrization import finalize, mask_of
from sparsekit.selection import select, shared_weights

#: Below this sparsity kernels were not faster than dense at every batch (benchmarks/README.md).
MIN_SPARSITY = 0.5


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer."""

    name: str
    shape: tuple[int, int]  # out_features, in_features
    sparsity: float
    layout: str  # of the packed weight, or "dense"
    bytes_before: int  # weight and bias in memory
    bytes_after: int
    reason: str  # why it stayed dense; empty when it was converted

    @property
    def converted(self) -> bool:
        """Whether the layer is sparse now."""
        return not self.reason


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did, layer by layer; `print` shows it as a table."""

    layers: tuple[LayerReport, ...]

    @property
    def converted(self) -> int:
        """Number of layers that are sparse now."""
        return sum(layer.converted for layer in self.layers)

    @property
    def bytes_before(self) -> int:
        """Bytes of the selected layers before."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of the selected layers now."""
        return sum(layer.bytes_after for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "converted": self.converted,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def __str__(self) -> str:
        width = max(5, *(len(layer.name) for layer in self.layers))
        lines = [f"{'layer':{width}}  {'out x in':>12}  sparsity  layout  {'bytes before':>12}  {'bytes after':>12}"]
        for layer in self.layers:
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            lines.append(
                f"{layer.name:{width}}  {shape:>12}  {layer.sparsity:8.1%}  {layer.layout:6}  "
                f"{layer.bytes_before:12,}  {layer.bytes_after:12,}  {layer.reason}".rstrip()
            )
        size = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes"
        lines.append(f"{self.converted} of {len(self.layers)} layers converted, {size}")
        return "\n".join(lines)


def _bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _why_not(model: nn.Module, name: str, layer: nn.Module, sparsity: float, shared: set[str], limit: float) -> str:
    if type(layer) is not nn.Linear:
        return f"a {type(layer).__name__}, not an nn.Linear"
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.TransformerEncoderLayer):
        return "nn.TransformerEncoderLayer reads its weights itself"
    if name in shared:
        return "its weight is shared with another module"
    if layer.weight.device.type != "cpu":
        return f"its weight is on {layer.weight.device}, kernels run on the CPU"
    if sparsity < limit:
        return f"sparsity below {limit:.0%}, where dense is as fast"
    return ""


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in every place of the model that holds `old`."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(name, new)


def _convert_layer(
    model: nn.Module, name: str, layer: nn.Linear, shared: set[str], limit: float, layout: str
) -> LayerReport:
    weight = layer.weight.detach()
    size = weight.numel()
    sparsity = 1.0 - weight.count_nonzero().item() / size if size else 0.0
    before = size * weight.element_size()
    if layer.bias is not None:
        before += layer.bias.numel() * layer.bias.element_size()
    reason = _why_not(model, name, layer, sparsity, shared, limit)
    after = before
    if not reason:
        sparse = SparseLinear.from_linear(layer, layout=layout)
        _replace(model, layer, sparse)
        after = _bytes(sparse)
    return LayerReport(
        name, (weight.shape[0], weight.shape[1]), sparsity, "dense" if reason else layout, before, after, reason
    )


def convert(
    model: nn.Module,
    targets: Iterable[str] = ("Linear",),
    ignore: Iterable[str] = (),
    *,
    layout: str = runtime.DEFAULT_LAYOUT,
    min_sparsity: float = MIN_SPARSITY,
) -> ConversionReport:
    """Swap the model's pruned `nn.Linear` layers for `SparseLinear`, in place.

    Masks of `prune` are baked in first. Layers that cannot or should not be sparse stay as they are; the report says
    why.

    Args:
        model: any PyTorch model on the CPU.
        targets: layers to convert: class names, module names or "re:" patterns.
        ignore: layers to leave dense, in the same notation.
        layout: "lanes" is fast at every batch and fastest up to 8 tokens; "panel" is smaller and faster from 9 tokens
            on, so better for encoders, whose batch is all tokens of all sentences.
        min_sparsity: leave layers with a smaller fraction of zeros dense.

    Returns:
        One entry for every linear layer that `targets` and `ignore` select.

    Raises:
        TypeError: `targets` or `ignore` is a string.
        ValueError: a target matches nothing, nothing selected is a linear layer, or the layout is unknown.

    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> _ = model[0].weight.data[:, 2:].zero_()
    >>> print(convert(model, ignore=["2"]))
    layer      out x in  sparsity  layout  bytes before   bytes after
    0             4 x 8     75.0%  lanes            144           464
    1 of 1 layers converted, 144 -> 464 bytes
    """
    if layout not in runtime.LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(runtime.LAYOUTS)}, got {layout!r}")
    chosen = select(model, targets, ignore)
    if not any(isinstance(layer, nn.Linear) for layer in chosen.values()):
        raise ValueError(f"targets {list(targets)} with ignore {list(ignore)} leave no torch.nn.Linear of the model")
    for layer in chosen.values():
        if mask_of(layer) is not None:
            finalize(layer)
    shared = set(shared_weights(model))
    layers = {name: layer for name, layer in chosen.items() if isinstance(layer, nn.Linear)}
    rows = [_convert_layer(model, name, layer, shared, min_sparsity, layout) for name, layer in layers.items()]
    return ConversionReport(tuple(rows))


def densify(model: nn.Module) -> nn.Module:
    """Swap every `SparseLinear` of the model back for an `nn.Linear`, in place. Returns the model.

    Raises:
        ValueError: a layer has a fused activation function, which `nn.Linear` does not.
    """
    sparse = [module for module in model.modules() if isinstance(module, SparseLinear)]
    dense = [module.to_linear() for module in sparse]
    for old, new in zip(sparse, dense, strict=True):
        _replace(model, old, new)
    return model
