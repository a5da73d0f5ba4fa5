"""Plain measurements of a model, its dense counterpart and other engines: the content of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

#: Lower and upper bound.
Ends: TypeAlias = tuple[float, float]
#: Kinds of times: of the model itself; of an engine that runs the dense model in float32 or in int8.
KINDS = ("ours", "float32", "int8")
#: Names of the model and the dense model in tables.
OURS, DENSE = "this model", "dense"


@dataclass(frozen=True)
class EngineTime:
    """Time per call of an engine."""

    engine: str
    kind: str  # one of `KINDS`
    texts: int  # per call
    tokens: int  # per text
    threads: int
    ms: float  # median
    quartiles: Ends | None = None
    noisy: bool = False
    wrong: bool = False  # whether outputs are wrong on this machine; such engines are shown but do not count
    difference: float | None = None  # largest absolute difference of hidden states from torch with the same weights
    operators: Mapping[str, float] = field(default_factory=dict)  # milliseconds by operator, in descending order


@dataclass(frozen=True)
class Score:
    """A score of a model on the test data."""

    metric: str
    model: str  # `OURS`, `DENSE`, or a stage between them
    value: float
    interval: Ends | None = None


@dataclass(frozen=True)
class Quality:
    """Scores, and for each metric the paired difference from the dense model."""

    scores: Sequence[Score]
    differences: Mapping[str, tuple[float, Ends]]  # metric -> value and interval
    method: str  # of the intervals
    remarks: Sequence[str] = ()  # on the test data and the engines


@dataclass(frozen=True)
class LayerFacts:
    """A linear layer as it is stored."""

    name: str
    shape: tuple[int, int]  # out_features, in_features
    sparsity: float
    dtype: str
    block: str
    layout: str  # as in `CSR.pack`; "dense" for dense layers
    nbytes: int
    reason: str = ""  # why it stayed dense, if known


@dataclass(frozen=True)
class ModelSize:
    """Size of a model in bytes."""

    model: str
    disk: int | None
    memory: int | None


@dataclass(frozen=True)
class Facts:
    """Everything the page shows; sections without data are left out, and `unknown` says how to add them."""

    model: str
    environment: Mapping[str, Any]  # as `sparsekit.runtime.environment` has it
    commands: Sequence[str]
    times: Sequence[EngineTime] = ()
    time_remarks: Sequence[str] = ()
    quality: Quality | None = None
    layers: Sequence[LayerFacts] = ()
    layer_remarks: Sequence[str] = ()
    sizes: Sequence[ModelSize] = ()
    size_remarks: Sequence[str] = ()
    unknown: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)
