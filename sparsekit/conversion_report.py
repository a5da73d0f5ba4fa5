"""What `convert` did, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer."""

    name: str
    shape: tuple[int, int]  # out_features, in_features
    sparsity: float
    bytes_before: int  # weight and bias in memory
    bytes_after: int
    reason: str  # why it stayed dense; empty when it was converted
    speedups: Mapping[int, float]  # measured on this machine, by number of tokens; empty when not measured
    values: str = ""  # how a converted layer holds its weight, and in which blocks
    block: str = ""
    error: float | None = None  # of its outputs with the values asked for, relative; None when not measured

    @property
    def converted(self) -> bool:
        """Whether the layer is sparse now."""
        return not self.reason


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did, layer by layer; `print` shows it as a table."""

    layers: tuple[LayerReport, ...]
    fused: int  # activation functions that sparse layers now apply themselves

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
            "fused": self.fused,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def __str__(self) -> str:
        width = max(5, *(len(layer.name) for layer in self.layers))
        title = (
            f"{'layer':{width}}  {'out x in':>12}  sparsity  {'bytes before':>12}  {'bytes after':>12}  "
            f"{'held as':11}  times faster"
        )
        lines = [title]
        for layer in self.layers:
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            lines.append(
                f"{layer.name:{width}}  {shape:>12}  {layer.sparsity:8.1%}  "
                f"{layer.bytes_before:12,}  {layer.bytes_after:12,}  {_held_text(layer):11}  "
                f"{_gain_text(layer.speedups):12}  {_error_text(layer)}{layer.reason}".rstrip()
            )
        size = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes"
        fused = f", {self.fused} activation functions fused" if self.fused else ""
        lines.append(f"{self.converted} of {len(self.layers)} layers converted, {size}{fused}")
        return "\n".join(lines)


def _gain_text(speedups: Mapping[int, float]) -> str:
    return ", ".join(f"{times:.1f} at {count}" for count, times in speedups.items())


def _held_text(layer: LayerReport) -> str:
    if not layer.converted:
        return "dense"
    return layer.values if layer.block == "1x1" else f"{layer.values} {layer.block}"


def _error_text(layer: LayerReport) -> str:
    return "" if layer.error is None else f"error {layer.error:.1%}  "
