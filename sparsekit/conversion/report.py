"""The conversion report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sparsekit.conversion.report_text import report_text
from sparsekit.conversion.unreached import UnreachedWeight
from sparsekit.conversion.word_embeddings import EmbeddingReport
from sparsekit.fidelity import Fidelity

#: Smallest sparsity that counts as pruned; fewer zeros are chance.
LEAST_ZEROS = 0.01


@dataclass(frozen=True)
class LayerReport:
    """Result of converting one layer."""

    name: str
    shape: tuple[int, int]  # out_features, in_features
    sparsity: float
    bytes_before: int  # weight and bias in memory
    bytes_after: int
    reason: str  # why it stayed dense; empty if converted
    speedups: Mapping[int, float]  # measured on this machine, by number of tokens; empty if not measured
    dtype: str = ""  # storage type of a converted layer
    block: str = ""  # of its mask
    layout: str = ""  # packed layout, as in `CSR.pack`
    error: float | None = None  # relative error of its outputs in the requested type; None if not measured
    noisy: tuple[int, ...] = ()  # numbers of tokens for which the machine was too busy to measure

    @property
    def converted(self) -> bool:
        """Whether the layer is sparse now."""
        return not self.reason


_NOISY = "; noisy: on one thread, by processor time, since others keep this machine busy"


@dataclass(frozen=True)
class WholeReport:
    """The converted model against the dense model, interleaved, on the batches of `convert`."""

    shapes: tuple[tuple[int, ...], ...]  # shapes of the timed batches
    dense_seconds: float  # of a call, mean over the batches that were timed
    seconds: float
    noisy: bool  # whether the machine was too busy: then these are processor seconds on one thread
    fidelity: Fidelity  # of the converted model's outputs

    @property
    def speedup(self) -> float:
        """Speed-up of the converted model."""
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
    """Result of `convert` for each layer and, with batches, the whole model; `print` shows a table."""

    layers: tuple[LayerReport, ...]
    fused: int  # number of activation functions fused into sparse layers
    others: tuple[UnreachedWeight, ...] = ()  # other dense matrices of the model
    sparse_weights: int = 0  # of sparse layers, zeros included
    weights: int = 0  # of the whole model
    whole: WholeReport | None = None  # None without batches, or if nothing was converted
    reference: Fidelity | None = None  # of the converted model to the reference; None if not given
    embeddings: tuple[EmbeddingReport, ...] = ()  # embeddings that are now int8

    @property
    def converted(self) -> int:
        """Number of sparse layers."""
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
        """As JSON types."""
        return {
            "whole": None if self.whole is None else {**asdict(self.whole), "speedup": self.whole.speedup},
            "reference": None if self.reference is None else asdict(self.reference),
            "embeddings": [asdict(one) for one in self.embeddings],
            "layers": [asdict(layer) for layer in self.layers],
            "converted": self.converted,
            "fused": self.fused,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "others": [asdict(other) for other in self.others],
            "sparse_weights": self.sparse_weights,
            "weights": self.weights,
        }

    @property
    def without_zeros(self) -> bool:
        """Whether no layer was pruned."""
        return all(layer.sparsity < LEAST_ZEROS for layer in self.layers)

    def __str__(self) -> str:
        return report_text(self)
