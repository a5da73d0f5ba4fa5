"""What a page is made of: plain measurements of a model, beside its dense self and other engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

#: Lower and upper bound.
Ends: TypeAlias = tuple[float, float]
#: Whose time it is: of the model itself; of an engine that runs the dense model in float32, or in int8.
KINDS = ("ours", "float32", "int8")
#: What tables call the model and its dense self.
OURS, DENSE = "this model", "dense"


@dataclass(frozen=True)
class EngineTime:
    """Milliseconds of a call of an engine."""

    engine: str
    kind: str  # one of `KINDS`
    texts: int  # of a call
    tokens: int  # of each
    threads: int
    ms: float  # median
    quartiles: Ends | None = None
    noisy: bool = False
    wrong: bool = False  # whether it computes something else on this machine: it is shown, and does not count
    difference: float | None = None  # largest of hidden states, from torch on the same weights
    operators: Mapping[str, float] = field(default_factory=dict)  # milliseconds in each, most first, where known


@dataclass(frozen=True)
class Score:
    """A score of a model on the test data."""

    metric: str
    model: str  # `OURS`, `DENSE`, or a stage between them
    value: float
    interval: Ends | None = None


@dataclass(frozen=True)
class Quality:
    """What a model keeps: scores, and for each metric the difference to the dense model, both on the same texts."""

    scores: Sequence[Score]
    differences: Mapping[str, tuple[float, Ends]]  # paired: value and interval
    method: str  # of the intervals
    remarks: Sequence[str] = ()  # what was scored, and how


@dataclass(frozen=True)
class LayerFacts:
    """What became of a linear layer."""

    name: str
    shape: tuple[int, int]  # out_features, in_features
    sparsity: float
    dtype: str
    block: str
    layout: str  # "dense" for one that stayed so
    nbytes: int
    reason: str = ""  # why it stayed dense, where that is known


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model."""

    model: str
    disk: int | None
    memory: int | None


@dataclass(frozen=True)
class Facts:
    """All that is known of a model; what is not is left out of the page, and `unknown` says what adds it."""

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
