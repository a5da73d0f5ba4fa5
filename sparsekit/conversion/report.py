"""What `convert` did, as data and as a table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sparsekit.conversion.unreached import UnreachedWeight
from sparsekit.fidelity import Fidelity
from sparsekit.io.atomic_file import printable

#: Of the zeros in a weight; fewer are chance.
LEAST_ZEROS = 0.01
#: So many layers in a row that differ only in their number are one line of the table: a mixture has thousands.
_TOGETHER = 4


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
    dtype: str = ""  # of a converted layer's weight
    block: str = ""  # of its mask
    error: float | None = None  # of its outputs in the type asked for, relative; None when not measured
    noisy: tuple[int, ...] = ()  # numbers of tokens for which the machine was too busy to tell

    @property
    def converted(self) -> bool:
        """Whether the layer is sparse now."""
        return not self.reason


_NOISY = "; noisy: on one thread, by processor time, since others keep this machine busy"
_SLOWER = (
    "whatever its layers seem to gain, the whole does not: convert the dense model again on a quieter machine, or keep "
    "it dense (sparsekit.densify)"
)


@dataclass(frozen=True)
class WholeReport:
    """The converted model against its dense self, interleaved, on the inputs that `convert` was given."""

    shapes: tuple[tuple[int, ...], ...]  # of the batches that were timed
    dense_seconds: float  # of a call, mean over the batches that were timed
    seconds: float
    noisy: bool  # whether the machine was too busy for all threads: then these are processor seconds on one
    fidelity: Fidelity  # of the converted model's outputs

    @property
    def speedup(self) -> float:
        """How many times faster the converted model is."""
        return self.dense_seconds / self.seconds

    def __str__(self) -> str:
        times = f"{1e3 * self.dense_seconds:.3g} ms dense, {1e3 * self.seconds:.3g} ms converted"
        told = (
            f"{self.speedup:.2f} times faster" if self.speedup >= 1.0 else f"SLOWER, {self.speedup:.2f} times as fast"
        )
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in self.shapes)
        return f"whole model on {shapes}: {told} ({times}{_NOISY if self.noisy else ''})"


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did, for the whole model where it had batches and by layer; `print` shows it as a table."""

    layers: tuple[LayerReport, ...]
    fused: int  # activation functions that sparse layers now apply themselves
    others: tuple[UnreachedWeight, ...] = ()  # matrices of the model that are in none of the layers
    sparse_weights: int = 0  # of sparse layers, zeros included
    weights: int = 0  # of the whole model
    whole: WholeReport | None = None  # None without batches, and where nothing was converted
    reference: Fidelity | None = None  # of the converted model to the one that it was pruned from; None when not given

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
            "whole": None if self.whole is None else {**asdict(self.whole), "speedup": self.whole.speedup},
            "reference": None if self.reference is None else asdict(self.reference),
            "layers": [asdict(layer) for layer in self.layers],
            "converted": self.converted,
            "fused": self.fused,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "others": [asdict(other) for other in self.others],
            "sparse_weights": self.sparse_weights,
            "weights": self.weights,
        }

    def _about_outputs(self) -> list[str]:
        """How far outputs moved, by conversion and by pruning."""
        lines = []
        if self.whole is not None:
            lines.append(f"outputs against the same model dense: {self.whole.fidelity}")
            if self.whole.fidelity.far:
                lines.append("they moved FAR: take a dtype of more bits, or set error_budget")
        if self.reference is not None:
            lines.append(f"outputs against the reference: {self.reference}")
            if self.reference.far:
                lines.append("they moved FAR: prune less, or train the pruned model before it is converted")
        return lines

    def _first_lines(self) -> list[str]:
        """What is to be known before the layers are looked at."""
        lines = [] if self.whole is None else [str(self.whole)]
        if self.whole is not None and self.whole.speedup < 1.0:
            lines.append(_SLOWER)
        lines += self._about_outputs()
        if self.converted and all(layer.sparsity < LEAST_ZEROS for layer in self.layers):
            lines.append("no layer has zeros: whatever is gained comes from values of fewer bits; prune for more")
        noisy = sum(bool(layer.noisy) for layer in self.layers)
        if noisy:
            lines.append(f"noisy: the machine was too busy to measure {noisy} of {len(self.layers)} layers well; close "
                         "other programs and convert again, or set min_sparsity")  # fmt: skip
        return lines

    def __str__(self) -> str:
        width = max(5, *(len(printable(layer.name)) for layer in _together(self.layers)))
        title = (
            f"{'layer':{width}}  {'out x in':>12}  sparsity  {'bytes before':>12}  {'bytes after':>12}  "
            f"{'held as':11}  times faster"
        )
        lines = [*self._first_lines(), title]
        for layer in _together(self.layers):
            shape = f"{layer.shape[0]} x {layer.shape[1]}"
            lines.append(
                f"{printable(layer.name):{width}}  {shape:>12}  {layer.sparsity:8.1%}  "
                f"{layer.bytes_before:12,}  {layer.bytes_after:12,}  {_held_text(layer):11}  "
                f"{_gain_text(layer):12}  {_error_text(layer)}{layer.reason}".rstrip()
            )
        size = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes"
        fused = f", {self.fused} activation functions fused" if self.fused else ""
        lines.append(f"{self.converted} of {len(self.layers)} layers converted, {size}{fused}")
        lines += [f"not reached: {_unreached_text(other)}" for other in self.others]
        if self.weights:
            share = self.sparse_weights / self.weights
            lines.append(f"{share:.1%} of the model's {self.weights:,} weights are in sparse layers")
        return "\n".join(lines)


def _together(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """The layers with those of one stack as one, `experts.down_proj.0-7`, of which the same became."""

    def kind(layer: LayerReport) -> tuple[object, ...]:
        stack, _, number = layer.name.rpartition(".")
        what = (layer.shape, layer.reason, layer.dtype, layer.block, layer.error is None)
        return (stack, number.isdecimal(), *what, _gain_text(layer))

    found = []
    for (_, numbered, *_), members in itertools.groupby(layers, kind):
        group = list(members)
        if not numbered or len(group) < _TOGETHER:
            found += group
            continue
        first, count = group[0], len(group)
        found.append(
            replace(
                first,
                name=f"{first.name}-{group[-1].name.rpartition('.')[2]}",
                sparsity=sum(layer.sparsity for layer in group) / count,
                bytes_before=sum(layer.bytes_before for layer in group),
                bytes_after=sum(layer.bytes_after for layer in group),
                error=None if first.error is None else max(layer.error or 0.0 for layer in group),
            )
        )
    return found


def _unreached_text(other: UnreachedWeight) -> str:
    shape = " x ".join(str(size) for size in other.shape)
    count = f"{other.count} of " if other.count > 1 else ""
    size = f"{other.share:.1%} of the weights, sparsity {other.sparsity:.1%}"
    return f"{printable(other.name)} ({count}{shape}), {size}: {other.reason}"


def _gain_text(layer: LayerReport) -> str:
    return ", ".join(
        f"{times:.1f} at {count}{' (noisy)' if count in layer.noisy else ''}" for count, times in layer.speedups.items()
    )


def _held_text(layer: LayerReport) -> str:
    if not layer.converted:
        return "dense"
    return layer.dtype if layer.block == "1x1" else f"{layer.dtype} {layer.block}"


def _error_text(layer: LayerReport) -> str:
    return "" if layer.error is None else f"error {layer.error:.1%}  "
